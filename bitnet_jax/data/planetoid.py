"""Planetoid's published files (Yang et al., 2016): pickles of Python 2."""

import collections
import pathlib
import pickle
from typing import Any

import numpy as np

from bitnet_jax.data import graph_files, graphs

NAMES = ("cora", "citeseer", "pubmed")
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
NUM_VALID = 500  # nodes after those of training

# What a damaged or hostile pickle raises.
_UNPICKLE_ERRORS = (
  AttributeError,
  EOFError,
  IndexError,
  KeyError,
  MemoryError,
  OverflowError,
  TypeError,
  ValueError,
  pickle.UnpicklingError,
)


class _Csr:
  """Stands for scipy's matrix of compressed rows; holds what it held."""


class _Unpickler(pickle.Unpickler):
  """Admits numpy arrays, sparse matrices and a dict of lists, nothing else."""

  def __init__(self, stream):
    super().__init__(stream, encoding="latin1")
    # A class of its own for each file, so that none can change another's.
    self.csr = type("Csr", (_Csr,), {})
    reconstruct = np.empty(0).__reduce__()[0]
    self._admitted = {
      "scipy.sparse.csr.csr_matrix": self.csr,
      "numpy.core.multiarray._reconstruct": reconstruct,
      "numpy.ndarray": np.ndarray,
      "numpy.dtype": np.dtype,
      "collections.defaultdict": collections.defaultdict,
      "__builtin__.list": list,
    }

  def find_class(self, module, name):
    """Returns what a pickle names, if that is admitted."""
    found = self._admitted.get(f"{module}.{name}")
    if found is None:
      raise pickle.UnpicklingError(
        f"it asks for {module}.{name}, which is none of:"
        f" {', '.join(self._admitted)}"
      )
    return found


def unpickle(file: pathlib.Path) -> Any:
  """Reads one of the pickles, running nothing that it brings.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is damaged, or asks for more than arrays, sparse matrices
      and lists by number; names the file.
  """
  if not file.is_file():
    raise FileNotFoundError(f"there is no file {file}")
  with file.open("rb") as stream:
    try:
      return _Unpickler(stream).load()
    except _UNPICKLE_ERRORS as error:
      raise ValueError(f"{file} is refused: {error}") from error


def read(
  folder: pathlib.Path, name: str, *, num_valid: int = NUM_VALID
) -> dict[str, np.ndarray]:
  """Reads the files `ind.NAME.*` of one set.

  Nodes are those of `allx`, then those between the least and the largest number
  in `test.index`. Numbers that it lacks (CiteSeer's) are nodes without features
  and label. Training nodes are those of `x`, validation nodes the next ones.

  Args:
    folder: where they are.
    name: "cora", "citeseer" or "pubmed".
    num_valid: number of validation nodes.

  Returns:
    The members of a .npz file that `nodes.read` takes: `data`, `indices`,
    `indptr`, `shape`, `labels`, `has_label`, `edges`, `train_idx`, `val_idx`,
    `test_idx`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is not as published; names it.
  """
  paths = {part: folder / f"ind.{name}.{part}" for part in PARTS}
  x, tx, allx = (_matrix(paths[part]) for part in ("x", "tx", "allx"))
  y, ty, ally = (_labels(paths[part]) for part in ("y", "ty", "ally"))
  for part, of_nodes, of_labels in (
    ("", x, y),
    ("t", tx, ty),
    ("all", allx, ally),
  ):
    if of_nodes.shape[0] != len(of_labels):
      raise ValueError(
        f"{paths[part + 'x']} has {of_nodes.shape[0]} nodes,"
        f" {paths[part + 'y']} has {len(of_labels)}"
      )
  index = _test_index(paths["test.index"], first=len(ally), count=len(ty))
  num_nodes = int(index.max()) + 1
  if len(y) + num_valid > len(ally):
    raise ValueError(
      f"{paths['ally']} has {len(ally)} nodes, which are fewer than the"
      f" {len(y)} for training and {num_valid} for validation"
    )
  one_hot = np.zeros((num_nodes, ally.shape[1]), ally.dtype)
  one_hot[: len(ally)], one_hot[index] = ally, ty
  features = _stack(allx, tx, index, num_nodes)
  return {
    "data": features.data,
    "indices": features.indices,
    "indptr": features.indptr,
    "shape": np.array(features.shape),
    "labels": one_hot.argmax(axis=1).astype(np.int32),
    "has_label": np.asarray(one_hot.any(axis=1)),
    "edges": _edges(paths["graph"]),
    "train_idx": np.arange(len(y), dtype=np.int32),
    "val_idx": np.arange(len(y), len(y) + num_valid, dtype=np.int32),
    "test_idx": np.sort(index),
  }


def _matrix(file):
  """Returns the sparse matrix of a file."""
  found = unpickle(file)
  parts = vars(found) if isinstance(found, _Csr) else {}
  arrays = [parts.get(name) for name in ("data", "indices", "indptr")]
  shape = parts.get("_shape")
  if not isinstance(shape, tuple) or not all(map(_is_array, arrays)):
    raise ValueError(f"{file} does not hold a sparse matrix of numbers")
  data, indices, indptr = map(np.asarray, arrays)
  return graph_files.check_csr(data, indices, indptr, shape, where=str(file))


def _labels(file):
  """Returns the labels of a file, [n, classes]."""
  found = unpickle(file)
  if not _is_array(found) or found.ndim != 2:
    raise ValueError(f"{file} does not hold labels [n, classes]")
  return found


def _is_array(value):
  return isinstance(value, np.ndarray) and value.dtype.kind in "iuf"


def _edges(file):
  """Returns the edges of a file, [m, 2]."""
  found = unpickle(file)
  if not isinstance(found, dict) or not all(
    isinstance(node, int)
    and isinstance(others, list)
    and all(isinstance(other, int) for other in others)
    for node, others in found.items()
  ):
    raise ValueError(f"{file} does not hold lists of nodes by node")
  pairs = [(node, other) for node in found for other in found[node]]
  return np.array(pairs, np.int64).reshape(-1, 2)


def _test_index(file, *, first, count):
  """Returns the number of each test node, in the order of the files."""
  if not file.is_file():
    raise FileNotFoundError(f"there is no file {file}")
  lines = file.read_text(encoding="ascii", errors="replace").split()
  bad = [i for i, line in enumerate(lines) if not line.isdecimal()]
  if bad:
    raise ValueError(
      f"{file}: line {bad[0] + 1} is {lines[bad[0]]!r}, not the number of a"
      " node"
    )
  index = np.array(lines, np.int64)
  if len(index) != count or len(np.unique(index)) != count or not count:
    raise ValueError(
      f"{file} names {len(np.unique(index))} different nodes in {len(index)}"
      f" lines, there are {count} test nodes"
    )
  if index.min() != first:
    raise ValueError(
      f"{file}: the least number is {index.min()}; it must be {first}, the"
      " number of the other nodes"
    )
  return index.astype(np.int32)


def _stack(allx, tx, index, num_nodes):
  """Returns the features of all nodes, those of ``tx`` in their places."""
  tx = tx.tocoo()
  rows, columns = index[tx.coords[0]], tx.coords[1]
  shape = (num_nodes, allx.shape[1])
  placed = graphs.sparse().csr_array((tx.data, (rows, columns)), shape=shape)
  above = allx.copy()
  above.resize(shape)
  return (above + placed).tocsr()
