"""Reads graphs from `.npz` files, one per file, single or in folders."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax.data import graphs, splits
from bitnet_jax.data.sources import csv_graphs, npz, textfiles
from bitnet_jax.data.sources.tables import Records, Source

SPARSE = ("data", "indices", "indptr", "shape")
MOST_FEATURES = 2**24  # of a node
# Kinds of dtypes: real numbers and truths, and integers.
_REAL, _INTEGERS = "biuf", "iu"


def read(path: str, cuts: splits.Cuts) -> Source:
  """Reads the file of one graph, the only example of "train"."""
  with npz.open_archive(textfiles.find(path)) as (archive, fingerprint):
    record = Records(records=[dict(archive)], name=str(archive.file))
  return Source(splits={"train": record}, fingerprint=fingerprint)


def read_folder(path: str, cuts: splits.Cuts) -> Source:
  """Reads a folder of files with one graph each, in the order of their names.

  A folder with a table `graphs.csv` is read by `csv_graphs.read_set`.

  The files are in the folder itself, or in its folders `train`, `valid` and
  `test`. The fingerprint is a SHA-256 of names and contents.

  Raises:
    FileNotFoundError: the folder does not exist.
    ValueError: it holds no graphs, or a file is not a complete .npz file.
  """
  folder = pathlib.Path(path).expanduser().absolute()
  if not folder.is_dir():
    raise FileNotFoundError(f"file:{path}: there is no folder {folder}")
  if csv_graphs.is_set(folder):
    return csv_graphs.read_set(folder)
  found = {key: sorted((folder / key).glob("*.npz")) for key in splits.NAMES}
  found = {key: files for key, files in found.items() if files}
  flat = sorted(folder.glob("*.npz"))
  if bool(flat) == bool(found) or (found and "train" not in found):
    inside = ", ".join(f"{len(files)} in {key}" for key, files in found.items())
    raise ValueError(
      f"{folder} must hold .npz files either itself or in a folder train (and"
      f" valid, test); it holds {len(flat)} itself and {inside or 'none'} in"
      " such folders"
    )
  content = hashlib.sha256()
  tables = {}
  for key, files in (found or {"train": flat}).items():
    names, records = [str(file.relative_to(folder)) for file in files], []
    for name in names:
      with npz.open_archive(folder / name) as (archive, fingerprint):
        records.append(dict(archive))
      content.update(f"{name} {fingerprint.partition(':')[2]}\n".encode())
    tables[key] = Records(
      records=records, name=str(folder), unit="file", places=names
    )
  return Source(splits=tables, fingerprint=f"sha256:{content.hexdigest()}")


def features(members: Mapping[str, np.ndarray], *, where: str) -> Any:
  """Returns the features of nodes, float32 [n, d], or `None` without any.

  They are `features` [n, d], or `data`, `indices`, `indptr` and `shape` of a
  sparse matrix of compressed rows, which stays sparse.

  Raises:
    ValueError: a member is missing or wrong; names it.
  """
  if "features" in members:
    values = members["features"]
    if values.ndim != 2 or values.dtype.kind not in _REAL:
      raise ValueError(
        f"{where}: features is {values.dtype} {list(values.shape)}, it must be"
        " numbers [n, d]"
      )
    return check_finite(values, where=f"{where}: features")
  if not set(SPARSE) & set(members):
    return None
  npz.check_members(members, *SPARSE, where=where)
  data, indices, indptr, shape = (members[name] for name in SPARSE)
  check_integers(shape, where=f"{where}: shape")
  return check_csr(data, indices, indptr, tuple(shape.tolist()), where=where)


def check_csr(
  data: np.ndarray,
  indices: np.ndarray,
  indptr: np.ndarray,
  shape: tuple[int, ...],
  *,
  where: str,
) -> Any:
  """Returns a sparse float32 matrix of compressed rows, as SciPy names parts.

  Raises:
    ValueError: the parts are not those of a matrix of at most `MOST_FEATURES`
      columns; names `where` and the part.
  """
  if len(shape) != 2 or min(shape) < 0 or shape[1] > MOST_FEATURES:
    raise ValueError(
      f"{where}: shape is {shape}, it must be n, d with d at most"
      f" {MOST_FEATURES}"
    )
  if data.ndim != 1 or data.dtype.kind not in _REAL:
    raise ValueError(
      f"{where}: data is {data.dtype} {list(data.shape)}, it must be numbers"
      " [n]"
    )
  check_integers(indices, where=f"{where}: indices")
  check_integers(indptr, where=f"{where}: indptr")
  if len(data) != len(indices):
    raise ValueError(
      f"{where}: there are {len(data)} data, but {len(indices)} indices"
    )
  rows, columns = shape
  ends = (0, len(data))
  if (
    len(indptr) != rows + 1
    or (indptr[0], indptr[-1]) != ends
    # Differences of unsigned integers never are negative.
    or (np.diff(indptr.astype(np.int64)) < 0).any()
  ):
    raise ValueError(
      f"{where}: indptr must rise from 0 to {len(data)} in {rows} steps"
    )
  outside = np.flatnonzero((indices < 0) | (indices >= columns))
  if outside.size:
    raise ValueError(
      f"{where}: indices[{outside[0]}] is {indices[outside[0]]}, but there are"
      f" {columns} features, numbered from 0"
    )
  data = check_finite(data, where=f"{where}: data")
  matrix = graphs.sparse().csr_array((data, indices, indptr), shape=shape)
  matrix.sum_duplicates()
  return matrix


def check_finite(values: np.ndarray, *, where: str) -> np.ndarray:
  """Returns values as float32; a ValueError names one that is not finite."""
  with np.errstate(over="ignore"):  # what overflows is found just below
    values = values.astype(np.float32)
  bad = np.argwhere(~np.isfinite(values))
  if len(bad):
    raise ValueError(
      f"{where}{bad[0].tolist()} is NaN or infinite (as float32)"
    )
  return values


def check_integers(values: np.ndarray, *, where: str) -> np.ndarray:
  """Returns the values; a ValueError unless they are integers [n]."""
  if values.ndim != 1 or values.dtype.kind not in _INTEGERS:
    raise ValueError(
      f"{where} is {values.dtype} {list(values.shape)}, it must be integers [n]"
    )
  return values
