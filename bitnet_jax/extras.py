"""Packages that come with an extra, ``pip install 'bitnet-jax[train]'``."""

import importlib.util


class MissingExtraError(ImportError):
  """A package of an extra is not installed."""


def missing(what: str, *packages: str, extra: str) -> MissingExtraError:
  """Returns the error for packages that are missing; see ``need``."""
  return MissingExtraError(
    f"{what} needs {', '.join(packages)}: pip install 'bitnet-jax[{extra}]'"
  )


def need(what: str, *packages: str, extra: str) -> None:
  """Checks that packages are installed, without importing them.

  Args:
    what: needs them.
    *packages: names to import.
    extra: of this library, has them.

  Raises:
    MissingExtraError: naming the packages that are missing, and the extra.
  """
  absent = [name for name in packages if not importlib.util.find_spec(name)]
  if absent:
    raise missing(what, *absent, extra=extra)
