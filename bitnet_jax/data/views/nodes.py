"""Graphs of which some nodes are labelled: where they come from."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from bitnet_jax import choices
from bitnet_jax.data import graphs, splits
from bitnet_jax.data.sources import graph_files, planetoid

_SPLITS = {"train": "train_idx", "valid": "val_idx", "test": "test_idx"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeDataset:
  """One graph, with nodes to train on and others to test on.

  Attributes:
    graph: all of it.
    labels: int32 [n], the class of each node; 0 where it is not known.
    has_label: bool [n], whether it is known.
    splits: int32 numbers of nodes by split, among "train", "valid", "test".
    num_classes: labels are in [0, num_classes).
    fingerprint: names the data by content or version, never by its place.
  """

  graph: graphs.Graph
  labels: np.ndarray
  has_label: np.ndarray
  splits: dict[str, np.ndarray]
  num_classes: int
  fingerprint: str


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  train_per_class: int | None,
  num_classes: int | None = None,
  row_normalize: bool = False,
) -> NodeDataset:
  """Loads a graph into memory.

  Splits that the source has are used as they are. A source without gets them
  from a draw that depends on labels and seed only: so many nodes of each class
  are for training, then a share of the others, stratified by class, for
  validation, and what is left for testing.

  Args:
    source: `embedded:karate` (34 members of a club that broke into two),
      `file:PATH.npz` (see `read`), or `tfds:planetoid/NAME` (Cora, CiteSeer or
      PubMed, see `planetoid_tfds`).
    cuts: `valid_fraction` and `split_seed` of the draw for a source without
      splits, and `data_dir`; others do not apply.
    train_per_class: training nodes of a class, for a source without splits.
    num_classes: number of classes; by default what the source says.
    row_normalize: whether features are divided by the sum of those of a node.

  Returns:
    The data set; features are sparse if those of the source are.

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: the package that provides the source is not installed.
    ValueError: an argument or something in the data is not as it must be.
  """
  scheme, _, name = source.partition(":")
  if (
    scheme not in _READERS
    or not name
    or (scheme == "embedded" and name != "karate")
  ):
    raise ValueError(
      f"unknown source of a graph {source!r}; choose among embedded:karate,"
      " file:PATH.npz and tfds:planetoid/NAME"
    )
  dataset = _READERS[scheme](name, cuts.data_dir)
  num_classes = num_classes or dataset.num_classes
  labels = splits.check_labels(
    dataset.labels, num_classes=num_classes, where=f"{source}: labels"
  )
  dataset = dataclasses.replace(dataset, labels=labels, num_classes=num_classes)
  if not dataset.splits:
    if train_per_class is None:
      raise ValueError(
        f"{source} has no splits; train_per_class must say how many nodes of"
        " each class are for training"
      )
    found = draw_splits(
      labels,
      dataset.has_label,
      train_per_class=train_per_class,
      valid_fraction=cuts.valid_fraction,
      seed=cuts.split_seed,
      where=source,
    )
    dataset = dataclasses.replace(dataset, splits=found)
  splits.warn_of_absent(
    labels[dataset.splits["train"]], num_classes=num_classes, where=source
  )
  if row_normalize:
    normalized = graphs.normalize_rows(dataset.graph.features, where=source)
    graph = dataclasses.replace(dataset.graph, features=normalized)
    dataset = dataclasses.replace(dataset, graph=graph)
  return dataset


def read(path: str) -> NodeDataset:
  """Reads a .npz file of one graph.

  Members: `edges` integers [m, 2], undirected; `labels` integers [n]; the
  features, see `graph_files.features`; optionally `has_label` bool [n]; and
  optionally `train_idx`, `val_idx`, `test_idx`, the numbers of the nodes of
  each split. Others are not read. Of published self loops see
  `graphs.both_directions`.

  Args:
    path: of the file; a leading `~` is the home folder.

  Returns:
    The data set, without splits if the file has none, its labels not checked
    yet. The number of classes is the largest label + 1, the fingerprint the
    SHA-256 of the file.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no .npz file, or a member is missing or not as it must be;
      names file, member and index.
  """
  if pathlib.PurePath(path).suffix.lower() != ".npz":
    raise ValueError(f"file:{path} does not name a graph: it must end in .npz")
  file = pathlib.Path(path).expanduser().absolute()
  members, digest = graph_files.read(file)
  return make_dataset(
    members,
    fingerprint=f"sha256:{digest}",
    where=str(file),
  )


def make_dataset(
  members: Mapping[str, np.ndarray],
  *,
  fingerprint: str,
  where: str,
) -> NodeDataset:
  """Makes a data set of the members of a file, see `read`.

  Raises:
    ValueError: a member is missing or not as it must be.
  """
  graph_files.check_members(members, "edges", "labels", where=where)
  features = graph_files.features(members, where=where)
  if features is None:
    raise ValueError(
      f"{where} has no features: neither features nor"
      f" {', '.join(graph_files.SPARSE)}; it holds {', '.join(members)}"
    )
  n = features.shape[0]
  labels = graph_files.check_integers(
    members["labels"], where=f"{where}: labels"
  )
  has_label = members.get("has_label", np.ones(len(labels), bool))
  if has_label.ndim != 1 or has_label.dtype.kind not in "biu":
    raise ValueError(
      f"{where}: has_label is {has_label.dtype} {list(has_label.shape)}, it"
      " must be bool [n]"
    )
  for key, values in (("labels", labels), ("has_label", has_label)):
    if len(values) != n:
      raise ValueError(
        f"{where}: {key} has {len(values)} entries for {n} nodes"
      )
  has_label = has_label.astype(bool)
  if not has_label.any():
    raise ValueError(f"{where}: no node has a label")
  senders, receivers = graphs.both_directions(
    members["edges"], num_nodes=n, where=f"{where}: edges"
  )
  return NodeDataset(
    graph=graphs.Graph(features=features, senders=senders, receivers=receivers),
    labels=np.where(has_label, labels, 0),
    has_label=has_label,
    splits=_read_splits(members, has_label, where),
    num_classes=splits.count_classes(labels[has_label]),
    fingerprint=fingerprint,
  )


def _read_splits(members, has_label, where):
  """Returns the nodes of each split, checked; none if there are none."""
  found = {k: members[m] for k, m in _SPLITS.items() if m in members}
  if not found:
    return {}
  graph_files.check_members(members, _SPLITS["train"], where=where)
  taken: dict[int, str] = {}
  for key, nodes in found.items():
    name = f"{where}: {_SPLITS[key]}"
    graph_files.check_integers(nodes, where=name)
    if not len(nodes):
      raise ValueError(f"{name} is empty")
    for i, node in enumerate(nodes.tolist()):
      if not 0 <= node < len(has_label):
        raise ValueError(
          f"{name}[{i}] is {node}, but there are {len(has_label)} nodes,"
          " numbered from 0"
        )
      if not has_label[node]:
        raise ValueError(f"{name}[{i}] is {node}, a node without a label")
      if node in taken:
        raise ValueError(
          f"{name}[{i}] is {node}, which is in {taken[node]} already"
        )
      taken[node] = _SPLITS[key]
  return {key: nodes.astype(np.int32) for key, nodes in found.items()}


def draw_splits(
  labels: np.ndarray,
  has_label: np.ndarray,
  *,
  train_per_class: int,
  valid_fraction: float,
  seed: int,
  where: str,
) -> dict[str, np.ndarray]:
  """Draws the nodes of each split, see `load`.

  Raises:
    ValueError: a class has too few nodes, or nothing is left.
  """
  known = np.flatnonzero(has_label).astype(np.int32)
  nodes = np.random.default_rng(seed).permutation(known)
  train = []
  for label in np.unique(labels[known]):
    members = nodes[labels[nodes] == label]
    if not 0 < train_per_class < len(members):
      raise ValueError(
        f"{where}: train_per_class is {train_per_class}, but class {label} has"
        f" {len(members)} nodes; it must be less, and at least 1"
      )
    train.append(members[:train_per_class])
  train = np.sort(np.concatenate(train))
  others = np.setdiff1d(known, train)
  rest = splits.Split(inputs=others, labels=labels[others])
  test, valid = splits.cut(rest, fraction=valid_fraction, seed=seed)
  found = {"train": train, "valid": valid.inputs, "test": test.inputs}
  return {key: nodes for key, nodes in found.items() if len(nodes)}


def _karate(name, data_dir):
  """Zachary's karate club, its nodes without features but their number."""
  del name, data_dir
  try:
    import networkx
  except ImportError as error:
    raise ImportError(
      "embedded:karate needs networkx: pip install 'bitnet-jax[train]'"
    ) from error
  club = networkx.karate_club_graph()
  sides = [club.nodes[node]["club"] for node in club]
  n = len(sides)
  senders, receivers = graphs.both_directions(
    np.array(club.edges), num_nodes=n, where="embedded:karate"
  )
  identity = np.eye(n, dtype=np.float32)
  return NodeDataset(
    graph=graphs.Graph(features=identity, senders=senders, receivers=receivers),
    labels=np.unique(sides, return_inverse=True)[1],
    has_label=np.ones(n, bool),
    splits={},
    num_classes=2,
    fingerprint=f"embedded:karate networkx {networkx.__version__}",
  )


def _planetoid(name, data_dir):
  """One of the sets that `planetoid_tfds` prepares."""
  choices.check(
    f"tfds:{name}",
    [f"tfds:planetoid/{config}" for config in planetoid.NAMES],
    key="data.source",
  )
  try:
    from bitnet_jax.data.sources import planetoid_tfds
  except ImportError as error:
    raise ImportError(
      f"tfds:{name} needs tensorflow-datasets: pip install 'bitnet-jax[train]'"
    ) from error
  members, fingerprint = planetoid_tfds.read(
    name.split("/")[1], data_dir=data_dir
  )
  return make_dataset(members, fingerprint=fingerprint, where=f"tfds:{name}")


# Readers take the name behind the colon, and leave labels unchecked.
_READERS = {
  "embedded": _karate,
  "file": lambda name, _: read(name),
  "tfds": _planetoid,
}
