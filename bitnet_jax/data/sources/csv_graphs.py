"""Reads graphs in folders of CSV tables: edges, nodes and, of many, graphs."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from absl import logging

from bitnet_jax.data import classes, graphs, splits
from bitnet_jax.data.sources import graph_tables
from bitnet_jax.data.sources.tables import (
  Records,
  Source,
  Table,
  check_columns,
)

_INDICES = {"train": "train_idx", "valid": "val_idx", "test": "test_idx"}


def read(path: str, cuts: splits.Cuts) -> Source:
  """Reads one graph whose nodes have classes, from a folder of two tables.

  `nodes.csv` has the columns "id", which may be any text; "label", empty where
  it is not known; optionally "split", empty for nodes of no split; and the
  features, which are numbers. Without features each node has one of its own.
  `edges.csv` has the columns "source" and "target". Both may be compressed,
  with names that end in `.gz` or `.xz`.

  Returns:
    One example with the members that `nodes.load` describes, and "ids", str
    [n]. The fingerprint is that of the members and of the names of the classes,
    not of the ids.

  Raises:
    FileNotFoundError: there is no such folder, or it lacks a table.
    ValueError: something in a table is wrong; names the file and the line.
  """
  folder = pathlib.Path(path).expanduser().absolute()
  if not folder.is_dir():
    raise FileNotFoundError(f"file:{path}: there is no folder {folder}")
  table, features = graph_tables.read(
    graph_tables.need(folder, "nodes"),
    ("id", "label"),
    ("split",),
    numbers=True,
  )
  nodes = _Nodes.of(table, {"": 0}, [""] * len(table))
  (edges,) = _edges(_read_edges(folder), nodes)
  labels = table.columns["label"]
  known = np.array([label != "" for label in labels])
  parts = graph_tables.split_rows(table)
  for row in [row for rows in parts.values() for row in rows if not known[row]]:
    raise ValueError(
      f"{table.place(row)}: split is {table.columns['split'][row]!r}, but label"
      " is empty"
    )
  names = graph_tables.class_names(table.name, labels)
  number = {name: i for i, name in enumerate(names)}
  members = {
    "edges": edges,
    "labels": np.array([number.get(label, 0) for label in labels], np.int32),
    "has_label": known,
    **_features(features, table.name),
  }
  members |= {_INDICES[k]: np.array(r, np.int32) for k, r in parts.items()}
  ids = np.array(table.columns["id"])
  record = Records(records=[members | {"ids": ids}], name=str(folder))
  return Source(
    splits={"train": record},
    fingerprint=graphs.digest({"train": [members]}, names),
    class_names={"labels": names},
  )


def is_set(folder: pathlib.Path) -> bool:
  """Whether a folder has a table of graphs."""
  return graph_tables.find(folder, "graphs") is not None


def read_set(folder: pathlib.Path) -> Source:
  """Reads graphs with a class each, from a folder of three tables.

  `graphs.csv` has the columns "id", "label" and optionally "split", empty for
  graphs that are left out. `nodes.csv` has the columns "graph", the id of the
  graph; "id"; and the features, which are numbers. `edges.csv` has the columns
  "source", "target" and "graph"; the last may be missing if no two graphs have
  nodes of the same id. Without `nodes.csv` the nodes are those of the edges.

  Returns:
    Examples with the members that `graph_sets.load` describes. The fingerprint
    is that of the members and of the names of the classes.

  Raises:
    FileNotFoundError: the folder lacks a table.
    ValueError: something in a table is wrong; names the file and the line.
  """
  table, _ = graph_tables.read(
    graph_tables.need(folder, "graphs"), ("id", "label"), ("split",)
  )
  by_id = graph_tables.rows_by_id(table, [0] * len(table))
  numbers = {name: row for (_, name), row in by_id.items()}
  nodes, edges, features = _read_nodes(folder, numbers)
  counts = np.bincount(nodes.owner, minlength=len(table))
  for row in np.flatnonzero(counts == 0).tolist():
    raise ValueError(
      f"{table.place(row)}: the graph {table.columns['id'][row]!r} has no nodes"
    )
  parts = graph_tables.split_rows(table) or {"train": [*range(len(table))]}
  labels = table.columns["label"]
  names = graph_tables.class_names(
    table.name, [labels[row] for row in parts["train"]]
  )
  own_edges = _edges(edges, nodes)
  order = np.argsort(nodes.owner, kind="stable")
  rows_of = np.split(order, np.cumsum(counts)[:-1])
  tables = {}
  for key, rows in parts.items():
    own = table.take(rows)
    own_labels = classes.indices(own, "label", names)
    records = [
      {
        "edges": own_edges[row],
        "label": label,
        **(
          {"features": features[rows_of[row]]}
          if features.shape[1]
          else {"num_nodes": counts[row]}
        ),
      }
      for row, label in zip(rows, own_labels, strict=True)
    ]
    ids = own.columns["id"]
    tables[key] = Records(
      records=records, name=str(folder), unit="graph", places=ids
    )
  return Source(
    splits=tables,
    fingerprint=graphs.digest(
      {key: table.records for key, table in tables.items()}, names
    ),
    class_names={"label": names},
  )


@dataclasses.dataclass(frozen=True)
class _Nodes:
  """The nodes of all graphs.

  Attributes:
    where: names the table, for messages.
    graphs: numbers of the graphs by id.
    owner: the number of the graph of each node, int64 [n].
    numbers: the number of a node in its graph, by graph and id.
  """

  where: str
  graphs: Mapping[str, int]
  owner: np.ndarray
  numbers: Mapping[tuple[int, str], int]

  @classmethod
  def of(
    cls, table: Table, known: Mapping[str, int], graph_ids: Sequence[str]
  ) -> "_Nodes":
    """Numbers the nodes of a table; each must be of a known graph."""
    owner = [
      _known(table, r, "graph", known, own) for r, own in enumerate(graph_ids)
    ]
    rows = graph_tables.rows_by_id(table, owner)
    return cls(table.name, known, np.array(owner, np.int64), _count(rows))


def _count(keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], int]:
  """Numbers nodes within their graphs, in order."""
  counts: collections.Counter[int] = collections.Counter()
  found = {}
  for key in keys:
    found[key] = counts[key[0]]
    counts[key[0]] += 1
  return found


def _read_nodes(folder, numbers) -> tuple[_Nodes, Table, np.ndarray]:
  """Returns nodes and edges of many graphs, and the features of the nodes."""
  edges = _read_edges(folder)
  file = graph_tables.find(folder, "nodes")
  if file is not None:
    table, features = graph_tables.read(file, ("graph", "id"), (), numbers=True)
    nodes = _Nodes.of(table, numbers, table.columns["graph"])
    return nodes, edges, features
  check_columns(edges.name, edges.columns, ("graph",), "there is no nodes.csv")
  keys: dict[tuple[int, str], None] = {}
  for row, graph in enumerate(edges.columns["graph"]):
    owner = _known(edges, row, "graph", numbers, graph)
    for end in ("source", "target"):
      keys[owner, edges.columns[end][row]] = None
  owners = np.array([owner for owner, _ in keys], np.int64)
  nodes = _Nodes(edges.name, numbers, owners, _count(keys))
  return nodes, edges, np.zeros((len(keys), 0), np.float32)


def _read_edges(folder) -> Table:
  """Reads the table of edges."""
  table, _ = graph_tables.read(
    graph_tables.need(folder, "edges"), ("source", "target"), ("graph",)
  )
  return table


def _edges(table: Table, nodes: _Nodes) -> list[np.ndarray]:
  """Returns the edges of each graph, int64 [m, 2]."""
  graph_ids = table.columns.get("graph") if len(nodes.graphs) > 1 else None
  by_id = None if graph_ids or len(nodes.graphs) == 1 else _owners(table, nodes)
  ends = np.empty((len(table), 3), np.int64)
  for row in range(len(table)):
    if graph_ids:
      owner = _known(table, row, "graph", nodes.graphs, graph_ids[row])
    elif by_id is None:
      owner = 0
    else:
      owner = by_id.get(table.columns["source"][row], 0)
    ends[row, 0] = owner
    for column, name in enumerate(("source", "target"), start=1):
      node = nodes.numbers.get((owner, table.columns[name][row]))
      if node is None:
        raise ValueError(_unknown(table, row, name, owner, nodes))
      ends[row, column] = node
  loops = int((ends[:, 1] == ends[:, 2]).sum())
  if loops:
    logging.info(
      "%s: left %d edges from a node to itself out", table.name, loops
    )
  ends = ends[np.argsort(ends[:, 0], kind="stable")]
  counts = np.bincount(ends[:, 0], minlength=len(nodes.graphs))
  return np.split(ends[:, 1:], np.cumsum(counts)[:-1])


def _owners(table, nodes) -> dict[str, int]:
  """Returns the graph of each node by its id, which must be unique."""
  found: dict[str, int] = {}
  for owner, node in nodes.numbers:
    if found.setdefault(node, owner) != owner:
      raise ValueError(
        f"{table.name} lacks the column graph, but the node {node!r} is in more"
        f" than one graph of {nodes.where}"
      )
  return found


def _unknown(table, row, name, owner, nodes) -> str:
  """Returns the error for an end of an edge that is no node."""
  value = table.columns[name][row]
  of = ""
  if len(nodes.graphs) > 1:
    of = f" of the graph {[*nodes.graphs][owner]!r}"
  return (
    f"{table.place(row)}: {name} is {value!r}, which is no id in"
    f" {nodes.where}{of}"
  )


def _features(features, where) -> dict[str, np.ndarray]:
  """Returns the members of the features of a graph, one-hot without any."""
  if features.shape[1]:
    return {"features": features}
  n = len(features)
  logging.info("%s has no features: each node gets one of its own", where)
  return {
    "data": np.ones(n, np.float32),
    "indices": np.arange(n, dtype=np.int32),
    "indptr": np.arange(n + 1, dtype=np.int32),
    "shape": np.array([n, n]),
  }


def _known(table, row, column, known: Mapping[str, int], value) -> int:
  """Returns the number of a graph by its id."""
  if value not in known:
    raise ValueError(
      f"{table.place(row)}: {column} is {value!r}, which is no id in graphs.csv"
    )
  return known[value]
