"""Interception of the calls of Flax modules that no cached trace hides.

``nn.jit`` shares the trace of a module among all that are alike, and a call
that finds one runs no Python: nothing is intercepted, and what an interceptor
put in the place of a layer stays there for other calls. Here a trace is for one
interceptor and one place in the model.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
from flax.core import freeze
from flax.core.scope import Scope

new_key = itertools.count().__next__


class Places:
  """Where in a model Flax is, as it looks for traces.

  It looks them up by hashes, of the flags of scopes among others. A hash of
  this tells the module that runs, and how many were asked for in its call.

  Args:
    key: of the interceptor.
  """

  def __init__(self, key: int):
    self._key, self._calls = key, [("", itertools.count())]

  def __hash__(self) -> int:
    path, asked = self._calls[-1]
    return hash((self._key, path, next(asked)))

  def __eq__(self, other: object) -> bool:
    return self is other

  @contextlib.contextmanager
  def inside(self, path: str) -> Iterator[None]:
    """Is the call of the module at a path."""
    self._calls.append((path, itertools.count()))
    try:
      yield
    finally:
      self._calls.pop()


def mark(scope: Scope, key: int | None = None) -> Places:
  """Returns what ``nn.jit`` in a scope looks for traces by from now on.

  Args:
    scope: in which no module is bound yet.
    key: what scopes with the same key share their traces by; by default they
      share nothing.
  """
  key = new_key() if key is None else key
  places = Places(key)
  # Scopes inside, of submodules and transforms, get the flags of this one.
  scope.flags = freeze({**scope.flags, f"intercepted {key}": places})
  return places


@contextlib.contextmanager
def intercept_calls(
  interceptor: Callable[..., Any], places: Places
) -> Iterator[None]:
  """Is ``nn.intercept_methods`` for the modules of a marked scope.

  Args:
    interceptor: called with the next function, arguments and context of each
      method, as by ``nn.intercept_methods``.
    places: what ``mark`` returned.
  """

  def within(next_fun, args, kwargs, context):
    scope = context.module.scope
    path = "" if scope is None else "/".join(scope.path)
    with places.inside(path):
      return interceptor(next_fun, args, kwargs, context)

  with nn.intercept_methods(within):
    yield
