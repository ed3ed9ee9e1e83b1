"""Packages that come with an extra, ``pip install 'bitnet-jax[train]'``."""

import importlib.util


class MissingExtraError(ImportError):
  """A package of an extra is not installed."""


def need(what: str, *packages: str, extra: str) -> None:
  """Checks that packages are installed, without importing them.

  Args:
    what: needs them.
    *packages: names to import.
    extra: of this library, has them.

  Raises:
    MissingExtraError: naming the packages that are missing, and the extra.
  """
  missing = [name for name in packages if not importlib.util.find_spec(name)]
  if missing:
    raise MissingExtraError(
      f"{what} needs {', '.join(missing)}: pip install 'bitnet-jax[{extra}]'"
    )
