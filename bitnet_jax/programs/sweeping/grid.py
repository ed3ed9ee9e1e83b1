"""Grids of config values: ``KEY=VALUE,VALUE,...`` and ``KEY=FIRST..LAST``."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bitnet_jax.train.config import flags

Grid = Mapping[str, Sequence[Any]]  # Values by dotted key.

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_MOST_MEMBERS = 10_000
_OPENING, _CLOSING = "([{", ")]}"
# Characters of a folder's name beside letters and digits.
_SAFE = frozenset("._-:")
_LONGEST = 200  # bytes of a folder's name


def parse(texts: Iterable[str], config: Any) -> Grid:
  """Parses grids; their product gives the members.

  Args:
    texts: one for each key.
    config: a ``ConfigDict`` with the keys, which says their types.

  Returns:
    Values by key, in the order of the texts.

  Raises:
    ValueError: for a grid without key or values, a key twice or that is no key
      of the config, and a value of another type or twice; names it.
  """
  grid: dict[str, list[Any]] = {}
  for text in texts:
    key, equals, values = text.partition("=")
    key = key.strip().removeprefix("config.")
    if not equals or not key:
      raise ValueError(f"--grid={text} is not KEY=VALUE,VALUE,...")
    if key in grid:
      raise ValueError(
        f"--grid={text}: another --grid already has {key}; list all values in"
        " one"
      )
    grid[key] = _values(text, key, values, config)
  if not grid:
    raise ValueError(
      "no --grid is given; name a key and its values, such as"
      " --grid=quant.recipe=float,b158 --grid=seed=0..4"
    )
  count = 1
  for values in grid.values():
    count *= len(values)
  if count > _MOST_MEMBERS:
    raise ValueError(f"--grid: {count} members, more than {_MOST_MEMBERS}")
  return grid


def _values(text: str, key: str, values: str, config: Any) -> list[Any]:
  """Returns the values of one grid."""
  words = [word.strip() for word in _split(text, values)]
  if not any(words):
    raise ValueError(f"--grid={text} is empty: it has no value for {key}")
  found: list[Any] = []
  for word in itertools.chain.from_iterable(_expand(text, w) for w in words):
    value = flags.parse_value(config, key, word, given=f"--grid={text}")
    if value in found:
      raise ValueError(f"--grid={text} has the value {word} twice")
    found.append(value)
  return found


def _split(text: str, values: str) -> list[str]:
  """Splits at commas that are in no brackets and quotes."""
  parts, depth, quote = [""], 0, ""
  for sign in values:
    if quote:
      quote = "" if sign == quote else quote
    elif sign in "'\"":
      quote = sign
    elif sign in _OPENING:
      depth += 1
    elif sign in _CLOSING:
      depth -= 1
    if sign == "," and not depth and not quote:
      parts.append("")
    else:
      parts[-1] += sign
  if depth or quote:
    raise ValueError(
      f"--grid={text} has a bracket or a quote that is not closed"
    )
  return parts


def _expand(text: str, word: str) -> list[str]:
  """Returns the numbers of a range, or the word itself."""
  match = _RANGE.fullmatch(word)
  if match is None:
    return [word]
  first, last = int(match[1]), int(match[2])
  if last < first:
    raise ValueError(f"--grid={text}: the range {word} is empty")
  if last - first >= _MOST_MEMBERS:
    raise ValueError(f"--grid={text}: the range {word} is too long")
  return [str(number) for number in range(first, last + 1)]


def members(grid: Grid) -> list[dict[str, Any]]:
  """Returns the combinations of values; the last key changes fastest."""
  return [
    dict(zip(grid, values, strict=True))
    for values in itertools.product(*grid.values())
  ]


def name_of(values: Mapping[str, Any]) -> str:
  """Returns the name of a member's folder: "quant.recipe=b158,seed=3".

  It does not depend on the order of the keys. Characters that folders or shells
  treat in a special way are percent-encoded; a long name ends with a hash.
  """
  name = ",".join(f"{key}={_safe(values[key])}" for key in sorted(values))
  if len(name.encode()) <= _LONGEST:
    return name
  digest = hashlib.sha256(name.encode()).hexdigest()[:12]
  kept = name.encode()[: _LONGEST - 13].decode(errors="ignore")
  return f"{kept}~{digest}"


def _safe(value: Any) -> str:
  """Returns a value as part of a folder's name."""
  if isinstance(value, list | tuple) and not any(
    isinstance(v, list | tuple) for v in value
  ):
    return "+".join(map(_safe, value)) if value else "none"
  text = value if isinstance(value, str) else repr(value)
  return "".join(
    sign
    if sign.isalnum() or sign in _SAFE
    else "".join(f"%{byte:02X}" for byte in sign.encode())
    for sign in text
  )
