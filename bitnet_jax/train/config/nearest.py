"""The config key that was probably meant by another name."""

import difflib
from collections.abc import Callable, Sequence

_MOST = 3  # keys that are suggested
_TYPING_ERROR = 0.85  # similarity, from which on a key has a typing error
_ALIKE = 0.75  # similarity of names in other groups
_LEAST_PART = 4  # characters of a part of a name


def suggest(key: str, keys: Sequence[str], *, prefix: str = "") -> str:
  """Returns " (did you mean ...?)" for the closest keys, or "".

  Finds typing errors, keys of other groups ("learning_rate", "model.seed"),
  initials ("optim.lr") and parts of names ("epochs").

  Args:
    key: dotted, as a user typed it.
    keys: all dotted keys.
    prefix: put before each suggested key.
  """
  found = [f"'{prefix}{name}'" for name in _closest(key, keys)[:_MOST]]
  if not found:
    return ""
  *others, last = found
  listed = f"{', '.join(others)} or {last}" if others else last
  return f" (did you mean {listed}?)"


def _closest(key: str, keys: Sequence[str]) -> list[str]:
  """Returns the closest keys, those in the same group rather than others."""
  typed = difflib.get_close_matches(key, keys, n=1, cutoff=_TYPING_ERROR)
  if typed:
    return typed
  group, _, leaf = key.rpartition(".")
  tests: list[Callable[[str], bool]] = [
    lambda name: name == leaf,
    lambda name: "".join(word[:1] for word in name.split("_")) == leaf,
    lambda name: len(leaf) >= _LEAST_PART and leaf in name.split("_"),
    lambda name: len(leaf) >= _LEAST_PART and (leaf in name or name in leaf),
  ]
  ranks: dict[tuple[bool, int], list[str]] = {}
  for name in keys:
    passed = next(
      (i for i, test in enumerate(tests) if test(_leaf(name))), None
    )
    if passed is not None:
      rank = (name.rpartition(".")[0] != group, passed)
      ranks.setdefault(rank, []).append(name)
  if ranks:
    return ranks[min(ranks)]
  leaves = {_leaf(name): name for name in reversed(keys)}
  close = difflib.get_close_matches(leaf, leaves, n=1, cutoff=_ALIKE)
  return [leaves[name] for name in close]


def _leaf(key: str) -> str:
  return key.rpartition(".")[2]
