"""The backend that programs are traced for."""

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
  """Whether the backend is a single CPU device."""
  return current() == "cpu" and jax.device_count() == 1


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[None]:
  """Traces for a backend other than the default one.

  This is for programs that are compiled here and run elsewhere. Functions that
  JAX has already traced are not traced again.
  """
  token = _TARGET.set(name)
  try:
    yield
  finally:
    _TARGET.reset(token)
