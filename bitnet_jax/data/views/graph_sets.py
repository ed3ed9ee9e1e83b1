"""Sets of labelled graphs: where they come from."""

import dataclasses
import hashlib
import itertools
import pathlib
from typing import Any

import numpy as np

from bitnet_jax.data import graphs, splits
from bitnet_jax.data.sources import graph_files, random_graphs

MOST_NODES = 2**20  # of a graph without features
_PER_CLASS = {"train": 250, "valid": 75, "test": 125}  # of embedded:graphs
_NODES = (20, 40)  # fewest and most nodes of them
_SEED = 0  # of embedded:graphs


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSplit:
  """Graphs that are used together.

  Attributes:
    graphs: in their order.
    labels: int32 [n], the class of each.
    names: of each, for messages.
  """

  graphs: tuple[graphs.Graph, ...]
  labels: np.ndarray
  names: tuple[str, ...]

  @property
  def classes(self) -> np.ndarray:
    """The labels."""
    return self.labels

  def take(self, rows: np.ndarray) -> "GraphSplit":
    """Returns the graphs where `rows`, bool [n], is true."""
    return GraphSplit(
      graphs=tuple(itertools.compress(self.graphs, rows)),
      labels=self.labels[rows],
      names=tuple(itertools.compress(self.names, rows)),
    )

  def __len__(self) -> int:
    return len(self.labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphDataset:
  """A set of labelled graphs.

  Attributes:
    splits: by name, among "train", "valid" and "test".
    num_features: of each node.
    num_classes: labels are in [0, num_classes).
    fingerprint: names the data by content or version, never by its place.
  """

  splits: dict[str, GraphSplit]
  num_features: int
  num_classes: int
  fingerprint: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Raw:
  """Graphs as a source gives them, features perhaps ``None``."""

  features: list[Any]
  sizes: list[int]
  edges: list[np.ndarray]
  labels: np.ndarray
  names: list[str]
  split_names: list[str]
  fingerprint: str


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  max_degree: int,
  num_classes: int | None = None,
  row_normalize: bool = False,
) -> GraphDataset:
  """Loads a set of graphs into memory and completes its splits.

  Splits that the source has are used as they are; missing ones are cut from
  "train", see `splits.Cuts`. Graphs without features get the degree of each
  node, see `graphs.degree_features`.

  Args:
    source: `embedded:graphs` (which of four random generators made a graph? see
      `random_graphs.draw`) or `file:FOLDER` (see `read_folder`).
    cuts: cut splits that the source lacks.
    max_degree: largest degree that has a feature.
    num_classes: number of classes; by default the largest label + 1.
    row_normalize: whether features are divided by the sum of those of a node.

  Returns:
    The set.

  Raises:
    FileNotFoundError: there is no such folder.
    ImportError: the package that provides the source is not installed.
    ValueError: an argument or something in the data is not as it must be.
  """
  scheme, _, name = source.partition(":")
  if source == "embedded:graphs":
    raw = _random_graphs()
  elif scheme == "file" and name:
    raw = read_folder(name)
  else:
    raise ValueError(
      f"unknown source of graphs {source!r}; choose among embedded:graphs and"
      " file:FOLDER"
    )
  num_classes = num_classes or splits.count_classes(raw.labels)
  labels = splits.check_labels(
    raw.labels, num_classes=num_classes, where=f"{source}: labels"
  )
  made = [
    _make_graph(raw, i, max_degree=max_degree, row_normalize=row_normalize)
    for i in range(len(labels))
  ]
  widths = [graph.features.shape[1] for graph in made]
  different = [i for i, width in enumerate(widths) if width != widths[0]]
  if different:
    raise ValueError(
      f"{raw.names[different[0]]} has {widths[different[0]]} features a node,"
      f" {raw.names[0]} has {widths[0]}"
    )
  whole = GraphSplit(graphs=tuple(made), labels=labels, names=tuple(raw.names))
  of_split = np.array(raw.split_names)
  found = {
    key: whole.take(of_split == key)
    for key in splits.NAMES
    if key in raw.split_names
  }
  completed = splits.complete(found, cuts, source=source)
  splits.warn_of_absent(
    completed["train"].labels, num_classes=num_classes, where=source
  )
  return GraphDataset(
    splits=completed,
    num_features=widths[0],
    num_classes=num_classes,
    fingerprint=raw.fingerprint,
  )


def _make_graph(raw, i, *, max_degree, row_normalize):
  """Returns graph ``i``, checked, with its features."""
  n, features = raw.sizes[i], raw.features[i]
  senders, receivers = graphs.both_directions(
    raw.edges[i], num_nodes=n, where=f"{raw.names[i]}: edges"
  )
  if features is None:
    features = graphs.degree_features(
      receivers, num_nodes=n, max_degree=max_degree
    )
  if row_normalize:
    features = graphs.normalize_rows(features, where=raw.names[i])
  return graphs.Graph(features=features, senders=senders, receivers=receivers)


def read_folder(path: str) -> _Raw:
  """Reads a folder of .npz files, one graph each.

  The files lie in the folder itself, or in folders `train`, `valid` and `test`
  there. Members of a file: `edges` integers [m, 2], undirected; `label`, an
  integer; and features, see `graph_files.features`, or else `num_nodes`, which
  is at most `MOST_NODES`.

  Args:
    path: of the folder; a leading `~` is the home folder.

  Returns:
    The graphs in the order of their names. The fingerprint is a SHA-256 of
    names and contents.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: it holds no graphs, or a file is not as it must be.
  """
  folder = pathlib.Path(path).expanduser().absolute()
  if not folder.is_dir():
    raise FileNotFoundError(f"file:{path}: there is no folder {folder}")
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
  if flat:
    found = {"train": flat}
  digest = hashlib.sha256()
  read, split_names, names = [], [], []
  for key, files in found.items():
    for file in files:
      members, content = graph_files.read(file)
      name = str(file.relative_to(folder))
      digest.update(f"{name} {content}\n".encode())
      read.append(_read_graph(members, where=str(file)))
      split_names.append(key)
      names.append(name)
  features, sizes, edges, labels = zip(*read, strict=True)
  return _Raw(
    features=list(features),
    sizes=list(sizes),
    edges=list(edges),
    labels=np.array(labels),
    names=names,
    split_names=split_names,
    fingerprint=f"sha256:{digest.hexdigest()}",
  )


def _read_graph(members, *, where):
  """Returns features or None, number of nodes, edges and label of a file."""
  graph_files.check_members(members, "edges", "label", where=where)
  features = graph_files.features(members, where=where)
  if features is None:
    graph_files.check_members(members, "num_nodes", where=where)
    num_nodes = _integer(members, "num_nodes", where)
    if num_nodes > MOST_NODES:
      raise ValueError(
        f"{where}: num_nodes is {num_nodes}, more than {MOST_NODES}"
      )
  else:
    num_nodes = features.shape[0]
  if num_nodes < 1:
    raise ValueError(f"{where}: a graph of {num_nodes} nodes")
  return (
    features,
    num_nodes,
    members["edges"],
    _integer(members, "label", where),
  )


def _integer(members, name, where):
  value = members[name]
  if value.size != 1 or value.dtype.kind not in "iu":
    raise ValueError(
      f"{where}: {name} is {value.dtype} {list(value.shape)}, it must be one"
      " integer"
    )
  return int(value.reshape(()))


def _random_graphs() -> _Raw:
  """Draws the graphs of embedded:graphs; their labels are their generators."""
  rng = np.random.default_rng(_SEED)
  kinds = tuple(random_graphs.GENERATORS)
  split_names = np.repeat(
    list(_PER_CLASS), [len(kinds) * n for n in _PER_CLASS.values()]
  ).tolist()
  total = len(split_names)
  labels = np.arange(total) % len(kinds)
  sizes = rng.integers(*_NODES, size=total, endpoint=True).tolist()
  seeds = rng.integers(2**31, size=total).tolist()
  return _Raw(
    features=[None] * total,
    sizes=sizes,
    edges=[
      random_graphs.draw(kinds[label], n, seed=seed)
      for label, n, seed in zip(labels, sizes, seeds, strict=True)
    ],
    labels=labels,
    names=[f"embedded:graphs[{i}]" for i in range(total)],
    split_names=split_names,
    fingerprint=f"embedded:graphs {random_graphs.versions()}",
  )
