"""Compiles the native kernels when a wheel is built, or the package installed.

Where there is no compiler, or none of the kernels is for this machine, the
package goes without them: all else works the same.
"""

import importlib.util
import pathlib
import shutil
import sysconfig
import tempfile

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = pathlib.PurePath("bitnet_jax", "ops", "cpu")
# The oldest headers give kernels that every supported jaxlib takes.
JAXLIB = "jaxlib>=0.10.2,<0.11"


class Kernels(BuildHookInterface):
  """Adds the library of kernels to a wheel, which is then for one platform."""

  PLUGIN_NAME = "custom"

  def dependencies(self) -> list[str]:
    """Returns what compiling needs, where it is possible."""
    try:
      self._compiling().compiler()
    except Exception:  # No file without a package is worth a failed install.
      return []
    return [JAXLIB]

  _made: pathlib.Path | None = None

  def initialize(self, version: str, build_data: dict) -> None:
    """Compiles; an error is a line of the build, which goes on."""
    compiling = self._compiling()
    name = compiling.file_name()
    if version == "editable":
      made = pathlib.Path(self.root) / FOLDER / name
    else:
      self._made = pathlib.Path(tempfile.mkdtemp(prefix="bitnet_jax-"))
      made = self._made / name
      build_data["force_include"][str(made)] = str(FOLDER / name)
    try:
      if not made.exists():
        compiling.compile_to(made, _include())
    except compiling.NativeError as error:
      build_data["force_include"].pop(str(made), None)
      self.app.display_warning(f"no native kernels: {error}")
      return
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    build_data["pure_python"] = False
    build_data["tag"] = f"py3-none-{platform}"

  def finalize(self, version: str, build_data: dict, artifact: str) -> None:
    """Removes what is in the wheel now."""
    if self._made is not None:
      shutil.rmtree(self._made, ignore_errors=True)

  def _compiling(self):
    path = pathlib.Path(self.root) / FOLDER / "compiling.py"
    spec = importlib.util.spec_from_file_location("compiling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _include() -> pathlib.Path:
  """Returns the folder of jaxlib's headers."""
  (place,) = importlib.util.find_spec("jaxlib").submodule_search_locations
  return pathlib.Path(place) / "include"
