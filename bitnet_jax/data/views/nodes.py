"""Loads graphs in which some nodes have a class."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from bitnet_jax.data import graphs, splits
from bitnet_jax.data.sources import npz, npz_graphs, registry

_SPLITS = {"train": "train_idx", "valid": "val_idx", "test": "test_idx"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeDataset:
  """One graph whose nodes are split for training and evaluation.

  Attributes:
    graph: the whole graph.
    labels: int32 [n], the class of each node; 0 where it is not known.
    has_label: bool [n], whether it is known.
    splits: int32 indices of nodes by split, among "train", "valid", "test".
    num_classes: labels are in [0, num_classes).
    fingerprint: identifies the data by content or version.
    class_names: names of the classes, empty if the source has none.
    names: names of the nodes, likewise.
  """

  graph: graphs.Graph
  labels: np.ndarray
  has_label: np.ndarray
  splits: dict[str, np.ndarray]
  num_classes: int
  fingerprint: str
  class_names: tuple[str, ...] = ()
  names: tuple[str, ...] = ()


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  train_per_class: int | None = None,
  num_classes: int | None = None,
  row_normalize: bool = False,
) -> NodeDataset:
  """Loads a graph; features are sparse if those of the source are.

  A graph has `edges`, integers [m, 2], undirected; `labels`, integers [n];
  features, see `npz_graphs.features`; optionally `has_label`, bool [n]; and
  optionally `train_idx`, `val_idx`, `test_idx`, the nodes of each split. If it
  has no splits, they are drawn: first `train_per_class` nodes of each class for
  "train", then `valid_fraction` of the others, stratified by class, for
  "valid", and the rest for "test".

  Args:
    source: `embedded:karate` (34 members of a club that broke into two),
      `file:PATH.npz`, `file:FOLDER` of CSV tables (see `csv_graphs.read`), or
      `tfds:planetoid/NAME` (Cora, CiteSeer or PubMed, see
      `planetoid_tfds`).
    cuts: `valid_fraction` and `split_seed` of this draw, and `data_dir`; the
      other fields do not apply.
    train_per_class: training nodes of each class.
    num_classes: number of classes; by default the largest label + 1.
    row_normalize: whether the features of a node are divided by their sum.

  Raises:
    ValueError: an argument or something in the data is wrong; names file,
      member and index.
  """
  read, rest = registry.find("a graph", source)
  found = registry.read(read, rest, cuts)
  graph: Any = found.splits["train"]
  dataset = make_dataset(graph.records[0], where=graph.name)
  num_classes = num_classes or dataset.num_classes
  labels = splits.check_labels(
    dataset.labels, num_classes=num_classes, where=f"{source}: labels"
  )
  own_splits = dataset.splits or _draw_splits(
    labels, dataset.has_label, cuts, train_per_class, source
  )
  splits.warn_of_absent(
    labels[own_splits["train"]], num_classes=num_classes, where=source
  )
  if row_normalize:
    normalized = graphs.normalize_rows(dataset.graph.features, where=source)
    graph = dataclasses.replace(dataset.graph, features=normalized)
    dataset = dataclasses.replace(dataset, graph=graph)
  return dataclasses.replace(
    dataset,
    labels=labels,
    splits=own_splits,
    num_classes=num_classes,
    fingerprint=found.fingerprint or "",
    class_names=found.names_of("labels", num_classes),
  )


def make_dataset(
  members: Mapping[str, np.ndarray], *, where: str
) -> NodeDataset:
  """Returns the data set of the members of a graph, see `load`.

  It has no fingerprint, perhaps no splits, and labels that are not checked yet.

  Raises:
    ValueError: a member is missing or wrong.
  """
  npz.check_members(members, "edges", "labels", where=where)
  features = npz_graphs.features(members, where=where)
  if features is None:
    raise ValueError(
      f"{where} has no features: neither features nor"
      f" {', '.join(npz_graphs.SPARSE)}; it holds {', '.join(members)}"
    )
  n = features.shape[0]
  labels = npz_graphs.check_integers(
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
    fingerprint="",
    names=tuple(map(str, members["ids"])) if "ids" in members else (),
  )


def _read_splits(members, has_label, where):
  """Returns the nodes of each split, checked; none if there are none."""
  found = {k: members[m] for k, m in _SPLITS.items() if m in members}
  if not found:
    return {}
  npz.check_members(members, _SPLITS["train"], where=where)
  taken: dict[int, str] = {}
  for key, nodes in found.items():
    name = f"{where}: {_SPLITS[key]}"
    npz_graphs.check_integers(nodes, where=name)
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


def _draw_splits(labels, has_label, cuts, train_per_class, where):
  """Returns the nodes of each split; a ValueError if a class has too few."""
  if train_per_class is None:
    raise ValueError(
      f"{where} has no splits; train_per_class must say how many nodes of each"
      " class are for training"
    )
  seed = cuts.split_seed
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
  test, valid = splits.cut(rest, fraction=cuts.valid_fraction, seed=seed)
  cut = {"valid": np.asarray(valid.inputs), "test": np.asarray(test.inputs)}
  found = {"train": train, **cut}
  return {key: nodes for key, nodes in found.items() if len(nodes)}
