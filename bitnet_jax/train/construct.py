"""From a group of config keys to a dataclass, with errors that say the key."""

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from bitnet_jax import choices

_T = TypeVar("_T")


def construct(cls: type[_T], values: Any, *, group: str) -> _T:
  """Calls a dataclass with the keys of a config group, checked.

  Raises:
    ValueError: for a group that is not one, an unknown or missing key, or a
      value of another type, naming key, value and what there is.
  """
  if not isinstance(values, Mapping):
    raise ValueError(f"{group} is {values!r}; it must be a group of keys")
  prefix = f"{group}." if group else ""
  hints = typing.get_type_hints(cls)
  for name in values:
    if name not in hints:
      close = choices.nearest(name, hints)
      raise ValueError(
        f"{prefix}{name} is not a key (its value is {values[name]!r}); the"
        f" keys are: {', '.join(hints)}{close}"
      )
  for name, hint in hints.items():
    if name not in values:
      raise ValueError(f"{prefix}{name} is missing")
    if not _has_type(values[name], hint):
      raise ValueError(
        f"{prefix}{name} is {values[name]!r}, of type"
        f" {type(values[name]).__name__}; it must be {_describe(hint)}"
      )
  return cls(**values)


def _has_type(value: Any, hint: Any) -> bool:
  if hint is Any:
    return True
  if isinstance(hint, types.UnionType):
    return any(_has_type(value, h) for h in typing.get_args(hint))
  origin = typing.get_origin(hint) or hint
  if origin is tuple:
    item = (typing.get_args(hint) or (Any,))[0]
    return isinstance(value, (tuple, list)) and all(
      _has_type(v, item) for v in value
    )
  if origin is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if origin is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, origin)


def _describe(hint: Any) -> str:
  if isinstance(hint, types.UnionType):
    return " or ".join(_describe(h) for h in typing.get_args(hint))
  return getattr(hint, "__name__", str(hint)).replace("NoneType", "None")
