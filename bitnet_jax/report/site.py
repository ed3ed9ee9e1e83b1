"""Writes the site: pages, data, styles, scripts and the library of figures."""

import importlib.resources
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bitnet_jax.extras import need, needed_by
from bitnet_jax.files import PathLike, local_path, read_json, write_atomically
from bitnet_jax.report import chunks, pages, reading, schema

MANIFEST_FILE = "report.json"
_MANIFEST_SCHEMA = "bitnet_jax.report/1"
_ASSETS = "assets"
_PLOTLY = f"{_ASSETS}/plotly.min.js"
_SUFFIXES = (".html", ".js", ".css", ".json")


def build(
  studies: PathLike, output: PathLike, records: Sequence[PathLike] = ()
) -> reading.Found:
  """Writes the site of all studies below a folder.

  A site that is there is replaced: files of the old one that the new one lacks
  are deleted, and other files remain.

  Args:
    studies: folder with one folder a study, such as "experiments".
    output: folder of the site; absent, empty, or with an earlier site.
    records: files of records of others, which must fit the schema.

  Returns:
    The studies, and notes on what could not be read as it is.

  Raises:
    FileExistsError: if the folder holds files that are not of a site.
    FileNotFoundError: if the studies or a file of records do not exist.
    MissingExtraError: without the packages of the extra "report".
    RecordError: for records of others that do not fit the schema.
    ValueError: without studies, or for damaged files; names file and line.
  """
  packages = ("jinja2", "jsonschema", "markdown_it", "plotly")
  need("the report", *packages, extra="report")
  output = local_path(output)
  old = _old_files(output)
  found = reading.find(studies, records)
  files = dict(_files(found))
  _check_free(output, set(files) - set(old))
  # Until the end it lists what is old, too, so that a kill leaves no file
  # that a later site takes for another's.
  output.mkdir(parents=True, exist_ok=True)
  _write_manifest(output, sorted({*old, *files}))
  for name, content in files.items():
    path = output / name
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, content)
  for name in set(old) - set(files):
    (output / name).unlink(missing_ok=True)
  _write_manifest(output, sorted(files))
  return found


def _files(found: reading.Found) -> Iterator[tuple[str, str]]:
  """Yields path below the site and content of each file."""
  yield from pages.all_of(found)
  yield from chunks.all_of(found.studies)
  yield from assets().items()
  yield schema.SCHEMA_FILE, schema.schema_text()


def assets() -> Mapping[str, str]:
  """Returns styles and scripts by path, the library of figures included."""
  with needed_by("the report", "plotly", extra="report"):
    from plotly import offline
  folder = importlib.resources.files("bitnet_jax.report") / "static"
  texts = {
    f"{_ASSETS}/{path.name}": path.read_text(encoding="utf-8")
    for path in folder.iterdir()
    if path.name.endswith((".css", ".js"))
  }
  return {**dict(sorted(texts.items())), _PLOTLY: offline.get_plotlyjs()}


def _old_files(output: pathlib.Path) -> list[str]:
  """Returns the files of a site that is there.

  Raises:
    FileExistsError: if there is something else.
  """
  if not output.exists() and not output.is_symlink():
    return []
  if not output.is_dir():
    raise FileExistsError(f"--output={output} is no folder")
  if not any(output.iterdir()):
    return []
  path = output / MANIFEST_FILE
  try:
    found: Any = read_json(path)
  except (OSError, ValueError):
    found = {}
  if found.get("schema") != _MANIFEST_SCHEMA:
    raise FileExistsError(
      f"--output={output} holds other files and no report; choose a new or"
      " empty folder"
    )
  return [name for name in found.get("files", ()) if _is_ours(name)]


def _is_ours(name: Any) -> bool:
  """Whether a name from a manifest is that of a file of a site."""
  parts = f"{name}".split("/")
  return (
    isinstance(name, str)
    and name.endswith(_SUFFIXES)
    and (len(parts) == 1 or parts[0] in (_ASSETS, chunks.FOLDER))
    and len(parts) <= 2
    and not {"", ".", ".."} & {*parts}
  )


def _check_free(output: pathlib.Path, names: set[str]) -> None:
  """Raises a FileExistsError if another file has the place of a new one."""
  for name in sorted(names):
    path = output / name
    if path.exists() or path.is_symlink():
      raise FileExistsError(f"{path} is no file of a report; move it away")
  for name in (_ASSETS, chunks.FOLDER):
    path = output / name
    if path.is_symlink() or (path.exists() and not path.is_dir()):
      raise FileExistsError(f"{path} is no folder of a report; move it away")


def _write_manifest(output: pathlib.Path, files: Sequence[str]) -> None:
  found = {"schema": _MANIFEST_SCHEMA, "files": list(files)}
  write_atomically(output / MANIFEST_FILE, json.dumps(found, indent=1) + "\n")
