"""Loads sets of labeled graphs."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from bitnet_jax.data import graphs, splits
from bitnet_jax.data.sources import npz, npz_graphs, registry
from bitnet_jax.data.splits import Dataset

MOST_NODES = 2**20  # of a graph without features


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSplit(splits.Columns):
  """A split of graphs, with int32 labels [n], and names for messages."""

  graphs: list[graphs.Graph]
  labels: np.ndarray
  names: list[str]


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  max_degree: int,
  num_classes: int | None = None,
  row_normalize: bool = False,
) -> Dataset[GraphSplit]:
  """Loads graphs with labels, see `Cuts` for the splits.

  A graph has `edges`, integers [m, 2], undirected; `label`, an integer; and
  features, see `npz_graphs.features`. Without features it has `num_nodes`, at
  most `MOST_NODES`, and the degrees of nodes become their features, see
  `graphs.degree_features`.

  Args:
    source: `embedded:graphs` (which of four random generators made a graph? see
      `random_graphs`), `file:FOLDER` (see `npz_graphs.read_folder` and
      `csv_graphs.read_set`) or `tfds:NAME`, a prepared set of such members.
    cuts: for splits that the source lacks.
    max_degree: largest degree that has a feature of its own.
    num_classes: number of classes; by default the largest label + 1.
    row_normalize: whether the features of a node are divided by their sum.

  Raises:
    ValueError: an argument or something in the data is wrong.
  """
  read, rest = registry.find("graphs", source)
  source_tables = registry.read(read, rest, cuts)
  found = {
    key: _make_split(table, max_degree, row_normalize)
    for key, table in source_tables.splits.items()
  }
  first = found["train"]
  width = first.graphs[0].features.shape[1]
  for split in found.values():
    for name, graph in zip(split.names, split.graphs, strict=True):
      if graph.features.shape[1] != width:
        raise ValueError(
          f"{name} has {graph.features.shape[1]} features a node,"
          f" {first.names[0]} has {width}"
        )
  labels = np.concatenate([split.labels for split in found.values()])
  num_classes = num_classes or splits.count_classes(labels)
  checked = splits.check_labels(
    labels, num_classes=num_classes, where=f"{source}: labels"
  )
  for key, split in found.items():
    own, checked = np.split(checked, [len(split)])
    found[key] = dataclasses.replace(split, labels=own)
  return splits.make_dataset(
    found,
    cuts,
    source=source,
    num_classes=num_classes,
    class_names=source_tables.names_of("label", num_classes),
    fingerprint=source_tables.fingerprint,
  )


def _make_split(table, max_degree, row_normalize):
  """Returns the graphs of a table, labels not checked yet."""
  made, labels = [], []
  names = [table.place(row) for row in range(len(table))]
  for members, where in zip(table.records, names, strict=True):
    npz.check_members(members, "edges", "label", where=where)
    labels.append(_integer(members, "label", where))
    made.append(
      make_graph(
        members,
        where=where,
        max_degree=max_degree,
        row_normalize=row_normalize,
      )
    )
  return GraphSplit(graphs=made, labels=np.array(labels), names=names)


def make_graph(
  members: Mapping[str, np.ndarray],
  *,
  where: str,
  max_degree: int,
  row_normalize: bool,
) -> graphs.Graph:
  """Returns a graph of the members that `load` describes, but for the label.

  Args:
    members: arrays by name.
    where: names the graph in messages.
    max_degree: see `load`.
    row_normalize: see `load`.

  Raises:
    ValueError: a member is missing or wrong.
  """
  npz.check_members(members, "edges", where=where)
  features = npz_graphs.features(members, where=where)
  n = _count_nodes(members, features, where)
  senders, receivers = graphs.both_directions(
    members["edges"], num_nodes=n, where=f"{where}: edges"
  )
  if features is None:
    features = graphs.degree_features(
      receivers, num_nodes=n, max_degree=max_degree
    )
  if row_normalize:
    features = graphs.normalize_rows(features, where=where)
  return graphs.Graph(features=features, senders=senders, receivers=receivers)


def _count_nodes(members, features, where):
  """Returns the number of nodes of a graph, which has some."""
  if features is None:
    npz.check_members(members, "num_nodes", where=where)
    num_nodes = _integer(members, "num_nodes", where)
    if num_nodes > MOST_NODES:
      raise ValueError(
        f"{where}: num_nodes is {num_nodes}, more than {MOST_NODES}"
      )
  else:
    num_nodes = features.shape[0]
  if num_nodes < 1:
    raise ValueError(f"{where}: a graph of {num_nodes} nodes")
  return num_nodes


def _integer(members, name, where):
  value = members[name]
  if value.size != 1 or value.dtype.kind not in "iu":
    raise ValueError(
      f"{where}: {name} is {value.dtype} {list(value.shape)}, it must be one"
      " integer"
    )
  return int(value.reshape(()))
