"""Reads Planetoid's published files (Yang et al., 2016), Python 2 pickles."""

import numpy as np

from bitnet_jax.data import graphs, splits
from bitnet_jax.data.sources import npz_graphs
from bitnet_jax.data.sources.planetoid_pickles import (
  MOST_OPERATIONS,
  Array,
  Csr,
  to_array,
  unpickle,
)
from bitnet_jax.data.sources.tables import Source
from bitnet_jax.extras import needed_by
from bitnet_jax.files import PathLike, local_path, read_bytes

NAMES = ("cora", "citeseer", "pubmed")
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
NUM_VALID = 500  # nodes after those of training
LARGEST_INDEX = 2**20  # bytes of `test.index`
LARGEST_NUMBER = 2**31 - 1  # of a node


def read_prepared(name: str, cuts: splits.Cuts) -> Source:
  """Reads a set as TFDS prepares it, see `planetoid_tfds.read_prepared`.

  Raises:
    ImportError: tensorflow-datasets is not installed.
  """
  with needed_by(f"tfds:{name}", "tensorflow-datasets", extra="tfds"):
    from bitnet_jax.data.sources import planetoid_tfds
  return planetoid_tfds.read_prepared(name, cuts)


def read(
  folder: PathLike, name: str, *, num_valid: int = NUM_VALID
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
    The members of a .npz file that `nodes.load` takes: `data`, `indices`,
    `indptr`, `shape`, `labels`, `has_label`, `edges`, `train_idx`, `val_idx`,
    `test_idx`.

  Raises:
    FileNotFoundError: a file is missing.
    ValueError: a file is not as published, or larger than `LARGEST_PICKLE` or
      `LARGEST_INDEX` bytes; names it.
  """
  folder = local_path(folder)
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
  parts = found.state if isinstance(found, Csr) else None
  if not isinstance(parts, dict) or not all(
    isinstance(parts.get(name), Array) for name in ("data", "indices", "indptr")
  ):
    raise ValueError(f"{file} does not hold a sparse matrix of numbers")
  data, indices, indptr = (
    to_array(parts[name], where=f"{file}: {name}")
    for name in ("data", "indices", "indptr")
  )
  shape = parts.get("_shape")
  if not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
    raise ValueError(f"{file} does not hold a sparse matrix with a shape")
  return npz_graphs.check_csr(data, indices, indptr, shape, where=str(file))


def _labels(file):
  """Returns the labels of a file, [n, classes]."""
  found = unpickle(file)
  labels = (
    to_array(found, where=str(file)) if isinstance(found, Array) else None
  )
  if labels is None or labels.ndim != 2 or not labels.size:
    raise ValueError(f"{file} does not hold labels [n, classes]")
  return labels


def _edges(file):
  """Returns the edges of a file, [m, 2]."""
  found = unpickle(file)
  # A list may stand in many places, so the number of edges is bounded first.
  lists = list(found.values()) if isinstance(found, dict) else [None]
  if not all(isinstance(others, list) for others in lists):
    raise ValueError(f"{file} does not hold lists of nodes by node")
  count = sum(map(len, lists))
  if count > MOST_OPERATIONS:
    raise ValueError(f"{file} has {count} edges, more than {MOST_OPERATIONS}")
  pairs = [(node, other) for node in found for other in found[node]]
  if not all(type(node) is int for pair in pairs for node in pair):
    raise ValueError(f"{file} does not hold lists of nodes by node")
  return np.array(pairs, np.int64).reshape(-1, 2)


def _test_index(file, *, first, count):
  """Returns the number of each test node, in the order of the files."""
  if not file.is_file():
    raise FileNotFoundError(f"there is no file {file}")
  data = read_bytes(file, most=LARGEST_INDEX)
  lines = data.decode("ascii", errors="replace").split()
  for i, line in enumerate(lines):
    if not line.isdecimal() or int(line[:20]) > LARGEST_NUMBER:
      raise ValueError(
        f"{file}: line {i + 1} is {line[:40]!r}, not the number of a node"
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
  missing = int(index.max()) + 1 - first - count
  if missing > count:
    raise ValueError(
      f"{file}: the largest number is {index.max()}, so that {missing} nodes"
      f" are in no file, more than the {count} that it names"
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
