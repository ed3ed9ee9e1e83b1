"""Signatures of layers that ``help`` and ``inspect`` show on a few lines.

Those of Flax spell out the unions behind its type aliases, and addresses of
functions. The arguments, their types and defaults are unchanged: only the text
is shorter.
"""

import inspect
from collections.abc import Callable
from typing import Any

from bitnet_jax.quantizers.recipe import RECIPES, Recipe

_SHORT = 12  # Longer types are left out; the docstring has them.


class _Argument(inspect.Parameter):
  """An argument that prints without a long type, and its default by name."""

  def __str__(self) -> str:
    stars: dict[Any, int] = {self.VAR_POSITIONAL: 1, self.VAR_KEYWORD: 2}
    text = "*" * stars.get(self.kind, 0) + self.name
    kind = inspect.formatannotation(self.annotation)
    untyped = self.annotation in (self.empty, Any)
    typed = not untyped and len(kind) <= _SHORT
    text += f": {kind}" if typed else ""
    if self.default is self.empty:
      return text
    return text + (" = " if typed else "=") + _shown(self.default)


class Readable:
  """The attribute ``__signature__`` of a class: that of its ``__init__``.

  A metaclass, such as that of NNX modules, would hide it.
  """

  def __get__(self, instance: Any, owner: type) -> inspect.Signature:
    if instance is not None:
      raise AttributeError("__signature__")  # Of a call of the instance.
    signature = readable(owner.__init__)
    _, *arguments = signature.parameters.values()
    return signature.replace(parameters=arguments)


def readable(function: Callable[..., Any]) -> inspect.Signature:
  """Returns the signature of a function, with a short text."""
  signature = inspect.signature(function)
  arguments = [
    _Argument(p.name, p.kind, default=p.default, annotation=p.annotation)
    for p in signature.parameters.values()
  ]
  return signature.replace(
    parameters=arguments, return_annotation=inspect.Signature.empty
  )


def _shown(default: Any) -> str:
  """Returns a default as text."""
  if isinstance(default, Recipe):
    names = [name for name, recipe in RECIPES.items() if recipe == default]
    return f"RECIPES[{names[0]!r}]" if names else "Recipe(...)"
  if inspect.isroutine(default):
    maker, _, inner = default.__qualname__.partition(".<locals>")
    return f"{maker}(...)" if inner else maker
  if isinstance(default, type):
    return default.__name__
  text = repr(default)
  return "..." if " at 0x" in text else text
