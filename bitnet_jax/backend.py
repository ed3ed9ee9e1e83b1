"""For which kind of device programs are traced."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_TARGET: contextvars.ContextVar[str | None] = contextvars.ContextVar(
  "target", default=None
)


def current() -> str:
  """Returns "cpu", "gpu", "tpu", or the name of another backend."""
  return _TARGET.get() or jax.default_backend()


def is_one_cpu() -> bool:
  """Whether that is a CPU, and no other device shares axes with it."""
  return current() == "cpu" and jax.device_count() == 1


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[None]:
  """Traces for another backend than the default one.

  For programs that are compiled here and run elsewhere. What JAX has traced
  before is not traced again.
  """
  token = _TARGET.set(name)
  try:
    yield
  finally:
    _TARGET.reset(token)
