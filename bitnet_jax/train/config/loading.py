"""Config files, by path or by name: ``--config=digits_mlp:B``.

The configs with names come with the library: they are the files of
``configs/``, which an installed wheel has inside the package.
"""

import pathlib
import runpy
import traceback

import ml_collections

import bitnet_jax
from bitnet_jax import choices


def folder() -> pathlib.Path:
  """Returns the folder of the configs that come with the library."""
  package = pathlib.Path(bitnet_jax.__file__).parent
  inside = package / "configs"
  return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
  """Returns the names of the configs that come with the library."""
  return sorted(path.stem for path in folder().glob("*.py"))


def load(value: str) -> ml_collections.ConfigDict:
  """Loads a config, locked; config files are not modules of the package.

  Args:
    value: ``PATH`` or ``NAME``, with an optional ``:VARIANT``.

  Raises:
    ValueError: for a file, a name or a variant that is not there, naming those
      there are, and for a mistake in the file, with its line.
  """
  file, *variant = locate(value).split(":", 1)
  try:
    found = runpy.run_path(file)
    if "get_config" not in found:
      raise ValueError(f"--config={file} has no function get_config()")
    config = found["get_config"](*variant)
    if not isinstance(config, ml_collections.ConfigDict):
      kind = type(config).__name__
      raise ValueError(
        f"--config={file}: get_config() returns {kind}, not ConfigDict"
      )
  except (OSError, ValueError):
    raise
  except Exception as error:
    place = f"--config={file}{_line(error, file)}"
    raise ValueError(f"{place}: {type(error).__name__}: {error}") from error
  return config.lock()


def locate(value: str) -> str:
  """Returns the path of a config.

  A path of a file that exists is taken as it is. Any other word without folder
  and ending is a name.

  Args:
    value: ``PATH`` or ``NAME``, with an optional ``:VARIANT``.

  Returns:
    The path of the file, with the variant.

  Raises:
    ValueError: if there is no such file or name; names the nearest.
  """
  word, colon, variant = value.partition(":")
  path = pathlib.Path(word).expanduser()
  if path.is_file():
    return f"{path}{colon}{variant}"
  if path.suffix or path.name != word:
    raise ValueError(f"--config={word} does not exist{_near(path)}")
  if word not in names():
    raise ValueError(
      f"--config={word} is neither a file nor a config of the library"
      + choices.nearest(word, [*names(), *_files(path)])
      + f"; those of the library are: {', '.join(names())}"
    )
  return f"{folder() / word}.py{colon}{variant}"


def note(value: str) -> str | None:
  """Returns what to say if a file here has the name of a library's config."""
  word = value.partition(":")[0]
  file = pathlib.Path(f"{word}.py")
  if pathlib.Path(word).is_file() or word not in names() or not file.is_file():
    return None
  if file.resolve().parent == folder().resolve():
    return None
  return (
    f"--config={word} is the config of the library; the file in this folder is"
    f" --config={file}"
  )


def _line(error: Exception, file: str) -> str:
  """Returns ", line N" for the line of a file at which an error came up."""
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == file]
  if isinstance(error, SyntaxError):
    lines.append(error.lineno)
  return f", line {lines[-1]}" if lines else ""


def _near(path: pathlib.Path) -> str:
  """Returns what there is instead of a file that does not exist."""
  files = _files(path)
  if path.suffix == ".py" and path.stem in names():
    near = f" (did you mean --config={path.stem}, a config of the library?)"
  else:
    near = choices.nearest(str(path), files)
  return near + (f"; there are: {', '.join(files)}" if files else "")


def _files(path: pathlib.Path) -> list[str]:
  """Returns the Python files in the folder of a path."""
  return sorted(str(p) for p in path.parent.glob("*.py"))
