"""Look-ups by name whose errors name the key, the value and the choices."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

_T = TypeVar("_T")


def pick(table: Mapping[str, _T], value: str, *, key: str) -> _T:
  """Returns ``table[value]``.

  Args:
    table: the choices, by name.
    value: the requested name.
    key: the config key or flag with this value, for the error ("quant.recipe").

  Raises:
    ValueError: for an unknown name; names the key, the value, the choices and
      the closest choice.
  """
  check(value, table, key=key)
  return table[value]


def check(value: object, choices: Iterable[object], *, key: str) -> None:
  """Raises a ValueError unless ``value`` is one of ``choices``."""
  choices = list(choices)
  if value in choices:
    return
  listed = ", ".join(repr(c) for c in choices)
  raise ValueError(
    f"{key} is {value!r}, which is not one of: {listed}"
    + nearest(str(value), [str(c) for c in choices])
  )


def nearest(value: str, choices: Iterable[str]) -> str:
  """Returns " (did you mean ...?)" for the closest choice, or ""."""
  # In capitals or not, a name is the same to its reader.
  spelled = {choice.casefold(): choice for choice in choices}
  close = difflib.get_close_matches(value.casefold(), spelled, n=1)
  return f" (did you mean {spelled[close[0]]!r}?)" if close else ""
