"""Checks for optional packages, ``pip install 'bitnet-jax[train]'``."""

import contextlib
import importlib.util
from collections.abc import Generator


class MissingExtraError(ImportError):
  """An optional package is not installed."""


def missing(what: str, *packages: str, extra: str) -> MissingExtraError:
  """Returns the error for missing packages; see ``need``."""
  return MissingExtraError(
    f"{what} needs {', '.join(packages)}: pip install 'bitnet-jax[{extra}]'"
  )


def need(what: str, *packages: str, extra: str) -> None:
  """Checks that packages are installed, without importing them.

  Args:
    what: the feature that needs them.
    *packages: import names.
    extra: the extra of this library that installs them.

  Raises:
    MissingExtraError: if some are missing; names them and the extra.
  """
  absent = [name for name in packages if not importlib.util.find_spec(name)]
  if absent:
    raise missing(what, *absent, extra=extra)


@contextlib.contextmanager
def needed_by(
  what: str, package: str, *, extra: str = "train"
) -> Generator[None]:
  """Names the package that an import inside lacks, and the extra."""
  try:
    yield
  except ImportError as error:
    raise missing(what, package, extra=extra) from error
