"""Runs tests with the lowest versions that pyproject.toml declares.

python -m tests.lowest_versions [PYTHON]

Makes a new environment of that interpreter, python3.11 by default, by uv, which
it installs into another one, and tests the layers there and the default tests
that need no program. Only what the package asks for by name is old; what these
packages ask for is what fits them.
"""

import pathlib
import subprocess
import sys
import tempfile

from tests.wheel_smoke import ROOT, environment, pip, run

TOOLS = ("beartype", "hypothesis", "pytest", "pytest-xdist")
TESTED = ("quantizers", "ops", "layers", "nnx", "convert", "import_test.py")


def main(python: str = "python3.11") -> int:
  """Returns the exit status of pytest."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    uv = environment(sys.executable, folder / "uv").with_name("uv")
    pip(uv.with_name("python"), "uv")
    lowest, old = folder / "lowest.txt", folder / "lowest"
    extras = ("--extra=train", "--extra=export")
    rule = "--resolution=lowest-direct"
    run(uv, "venv", "--python", python, old)
    run(
      *(uv, "pip", "compile", ROOT / "pyproject.toml", *extras, rule),
      *("--python", old / "bin" / "python", "--output-file", lowest),
    )
    print(lowest.read_text("utf-8"), flush=True)
    to = ("--python", old / "bin" / "python")
    run(uv, "pip", "install", *to, "--requirement", lowest, *TOOLS)
    # Without the checks of shapes, which older versions cannot add so late,
    # and without the test that goes around them.
    options = ("-o", "addopts=--strict-markers", "-m", "not slow", "-q")
    options += ("-k", "not bias_of_another_shape")
    # Old packages call what newer ones deprecate.
    options += (
      "-W",
      "ignore::DeprecationWarning",
      "-W",
      "ignore::ImportWarning",
    )
    tests = [f"tests/{name}" for name in TESTED]
    command = [old / "bin" / "python", "-m", "pytest", *options, *tests]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
