"""Compiles the native kernels when a wheel is built, or the package installed.

Where there is no compiler, or where no kernels are written for the machine, the
package goes without them: all else works the same.
"""

import importlib.util
import pathlib
import runpy
import shutil
import sysconfig
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = pathlib.Path(__file__).parent
CPU = pathlib.PurePath("bitnet_jax", "ops", "cpu")
# The oldest headers give kernels that every supported jaxlib takes.
JAXLIB = (
  "jaxlib>=0.10.2,<0.11; python_version < '3.15'",
  "jaxlib>=0.10.2; python_version >= '3.15'",
)
# The package itself needs JAX, which the build does without.
compiling = runpy.run_path(f"{ROOT / CPU / 'compiling.py'}")
NativeError = compiling["NativeError"]


class Kernels(BuildHookInterface):
  """Adds the library of kernels to a wheel, which is then for one platform."""

  PLUGIN_NAME = "custom"
  _folder: pathlib.Path | None = None

  def dependencies(self) -> list[str]:
    """Returns what compiling needs, where it is possible."""
    try:
      compiling["compiler"]()
    except NativeError:
      return []
    return [*JAXLIB]

  def initialize(self, version: str, build_data: dict[str, Any]) -> None:
    """Compiles; an error is a line of the build, which goes on."""
    place = CPU / compiling["COMPILED"] / compiling["file_name"]()
    if version == "editable":
      made = ROOT / place
    else:
      self._folder = pathlib.Path(tempfile.mkdtemp(prefix="bitnet_jax-"))
      made = self._folder / place.name
    try:
      if not made.exists():
        compiling["compile_to"](made, _include())
    except NativeError as error:
      self.app.display_warning(f"no native kernels: {error}")
      return
    if version != "editable":
      build_data["force_include"][str(made)] = str(place)
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    build_data["pure_python"] = False
    build_data["tag"] = f"py3-none-{platform}"

  def finalize(
    self, version: str, build_data: dict[str, Any], artifact_path: str
  ) -> None:
    """Removes what is in the wheel now."""
    if self._folder is not None:
      shutil.rmtree(self._folder, ignore_errors=True)


def _include() -> pathlib.Path:
  """Returns the folder of jaxlib's headers."""
  spec = importlib.util.find_spec("jaxlib")
  if spec is None or not spec.submodule_search_locations:
    raise NativeError("compiling them needs jaxlib")
  return pathlib.Path(spec.submodule_search_locations[0], "include")
