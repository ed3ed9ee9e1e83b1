"""Intercepts the calls of Flax modules, also under ``nn.jit``.

``nn.jit`` shares one trace among equal modules. A call that finds a trace runs
no Python: interceptors do not see it, and their effect on the first call stays
in the trace for the others. ``Interception`` gives each interceptor and each
place in the model its own trace.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
from flax.core import freeze, lift
from flax.core.scope import Scope

new_key = itertools.count().__next__


class Interception:
  """Intercepts the calls of modules that are bound to a scope from now on.

  Flax looks traces up by hashes, among others of the flags of a scope. This is
  such a flag: its hash tells which module is running, and how many hashes were
  asked for during its call.

  Args:
    scope: in which no module is bound yet.
    key: interceptions with the same key share their traces; by default none
      are shared.
  """

  def __init__(self, scope: Scope, key: int | None = None):
    self._key = new_key() if key is None else key
    self._calls = [("", itertools.count())]
    # Scopes inside, of submodules and transforms, get the flags of this one.
    scope.flags = freeze({**scope.flags, f"intercepted {self._key}": self})

  def __hash__(self) -> int:
    path, asked = self._calls[-1]
    return hash((self._key, path, next(asked)))

  def __eq__(self, other: object) -> bool:
    return self is other

  @contextlib.contextmanager
  def calls(self, interceptor: Callable[..., Any]) -> Iterator[None]:
    """Calls ``interceptor`` in place of each method, in this context.

    Args:
      interceptor: takes the next function, its arguments and the context, as
        ``nn.intercept_methods`` calls it.
    """

    def within(next_fun, args, kwargs, context):
      scope = context.module.scope
      path = "" if scope is None else "/".join(scope.path)
      self._calls.append((path, itertools.count()))
      try:
        return interceptor(next_fun, args, kwargs, context)
      finally:
        self._calls.pop()

    with nn.intercept_methods(within):
      yield


def jitted_paths() -> list[tuple[str, ...]]:
  """Returns the paths of the modules that ``nn.jit`` is tracing.

  Flax tells a module inside neither that it is traced nor where, so this looks
  for the function in ``flax.core.lift.jit`` that calls it.
  """
  paths: list[tuple[str, ...]] = []
  frame = sys._getframe()
  while frame is not None:
    if frame.f_code.co_name == "jitted" and frame.f_globals is vars(lift):
      scopes = jax.tree.leaves(frame.f_locals["scope"])
      paths += [scope.path for scope in scopes]
    frame = frame.f_back
  return paths
