"""Progress bars of reading data, on a terminal only."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

_DELAY = 2  # seconds until a bar appears
_T = TypeVar("_T")

_hidden = False


@contextlib.contextmanager
def hidden() -> Iterator[None]:
  """Shows no bars, for a block of code."""
  global _hidden
  before, _hidden = _hidden, True
  try:
    yield
  finally:
    _hidden = before


def bar(items: Iterable[_T], *, what: str, total: int) -> Iterator[_T]:
  """Yields items, and shows how many there were if it takes long.

  Args:
    items: the items.
    what: what is done with them, such as "reading pictures".
    total: their number.
  """
  try:
    import tqdm
  except ImportError:  # Data can be read without it.
    yield from items
    return
  yield from tqdm.tqdm(
    items,
    desc=what,
    total=total,
    delay=_DELAY,
    leave=False,
    disable=True if _hidden else None,
  )
