"""Constructs dataclasses from config groups, with errors that name the key."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from bitnet_jax import choices

_T = TypeVar("_T")


def construct(cls: type[_T], values: Any, *, group: str, **derived: Any) -> _T:
  """Constructs a dataclass from the checked keys of a config group.

  Args:
    cls: the dataclass; each field is a key, or a group if its type is a
      dataclass, too.
    values: the group.
    group: its name, "" for the whole config.
    **derived: values of the fields that are not keys.

  Raises:
    ValueError: if the group is no mapping, for an unknown or missing key, or
      for a value of another type; names the key, the value and the choices.
  """
  if not isinstance(values, Mapping):
    raise ValueError(f"{group} is {values!r}; it must be a group of keys")
  prefix = f"{group}." if group else ""
  hints = typing.get_type_hints(cls)
  for name in derived:
    del hints[name]
  for name in values:
    if name not in hints:
      close = choices.nearest(name, hints)
      raise ValueError(
        f"{prefix}{name} is not a key (its value is {values[name]!r}); the"
        f" keys are: {', '.join(hints)}{close}"
      )
  fields = {}
  for name, hint in hints.items():
    if name not in values:
      raise ValueError(f"{prefix}{name} is missing")
    value = values[name]
    if dataclasses.is_dataclass(hint) and not _has_type(value, hint):
      value = construct(typing.cast(type, hint), value, group=f"{prefix}{name}")
    if not _has_type(value, hint):
      raise ValueError(
        f"{prefix}{name} is {value!r}, of type {type(value).__name__}; it must"
        f" be {_describe(hint)}"
      )
    fields[name] = _freeze(value)
  return cls(**fields, **derived)


def _freeze(value: Any) -> Any:
  """Converts lists to tuples, since JSON has lists only."""
  if isinstance(value, (tuple, list)):
    return tuple(_freeze(item) for item in value)
  return value


def _has_type(value: Any, hint: Any) -> bool:
  if hint is Any:
    return True
  if isinstance(hint, types.UnionType):
    return any(_has_type(value, h) for h in typing.get_args(hint))
  origin = typing.get_origin(hint) or hint
  if origin is tuple:
    return isinstance(value, (tuple, list)) and _have_types(
      value, typing.get_args(hint)
    )
  if origin is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if origin is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, origin)


def _have_types(values: Sequence[Any], hints: tuple[Any, ...]) -> bool:
  if hints[-1] is Ellipsis:
    hints = hints[:1] * len(values)
  return len(values) == len(hints) and all(map(_has_type, values, hints))


def _describe(hint: Any) -> str:
  if isinstance(hint, types.UnionType):
    return " or ".join(_describe(h) for h in typing.get_args(hint))
  if typing.get_origin(hint) is tuple:
    return str(hint).replace("typing.", "")
  return getattr(hint, "__name__", str(hint)).replace("NoneType", "None")
