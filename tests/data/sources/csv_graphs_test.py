import gzip

import numpy as np
import pytest

from bitnet_jax.data.views import graph_sets, nodes
from tests.data.loading import load

NODES = """id,label,size,age,split
ann,cat,1,0.5,train
bob,dog,2,1.5,train
"c, d",cat,3,2.5,val
eve,,4,3.5,
fox,dog,5,4.5,test
"""
EDGES = """source,target
ann,bob
bob,ann
"c, d",ann
eve,eve
"""


def write(folder, **tables):
  folder.mkdir(exist_ok=True)
  for name, text in tables.items():
    (folder / f"{name}.csv").write_text(text)
  return f"file:{folder}"


def graph(folder, nodes_table=NODES, edges=EDGES, **options):
  source = write(folder, nodes=nodes_table, edges=edges)
  return load(nodes.load, source, **options)


def ends(found):
  return [*zip(found.senders.tolist(), found.receivers.tolist(), strict=True)]


def test_graph_of_two_tables(tmp_path):
  found = graph(tmp_path / "a graph é")
  np.testing.assert_array_equal(
    found.graph.features,
    np.array([[1, 0.5], [2, 1.5], [3, 2.5], [4, 3.5], [5, 4.5]], np.float32),
  )
  # Both directions once, and no self loop.
  assert ends(found.graph) == [(1, 0), (2, 0), (0, 1), (0, 2)]
  assert found.labels.tolist() == [0, 1, 0, 0, 1]
  assert found.has_label.tolist() == [True, True, True, False, True]
  assert {k: v.tolist() for k, v in found.splits.items()} == {
    "train": [0, 1],
    "valid": [2],
    "test": [4],
  }
  assert found.class_names == ("cat", "dog")
  assert found.num_classes == 2


def test_splits_are_drawn_where_there_is_no_column(tmp_path, caplog):
  rows = "".join(f"{i},{i % 2}\n" for i in range(12))
  table, edges = f"id,label\n{rows}", "target,source,weight\n1,2,0.5\n"
  found = graph(tmp_path, table, edges, train_per_class=2, valid_fraction=0.25)
  assert {k: len(v) for k, v in found.splits.items()} == {
    "train": 4,
    "valid": 2,
    "test": 6,
  }
  assert "edges.csv: these columns are not used: weight" in caplog.text
  # Without features each node has its own.
  np.testing.assert_array_equal(found.graph.features.toarray(), np.eye(12))
  with pytest.raises(ValueError, match="train_per_class must say"):
    graph(tmp_path, table, edges)


def test_order_and_names_of_ids_do_not_matter_but_content_does(tmp_path):
  first = graph(tmp_path / "a").fingerprint
  renamed = NODES.replace("ann", "Åsa"), EDGES.replace("ann", "Åsa")
  assert graph(tmp_path / "b", *renamed).fingerprint == first
  others = [
    (NODES.replace("0.5", "0.25"), EDGES),
    (NODES.replace("dog", "cow"), EDGES),
    (NODES.replace("val\n", "test\n"), EDGES),
    (NODES, EDGES.replace("eve,eve", "eve,fox")),
  ]
  found = {
    graph(tmp_path / f"o{i}", *tables).fingerprint
    for i, tables in enumerate(others)
  }
  assert len(found | {first}) == 5


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("bob,dog", "ann,dog", "nodes.csv, line 3: the id 'ann' is in line 2 alre"),
    ("bob,dog", ",dog", "nodes.csv, line 3: id is empty"),
    ("bob,dog,2", "bob,dog,red", "line 3: size is 'red', but features must be"),
    ("bob,dog,2", "bob,dog,", "nodes.csv, line 3: size is '', but features"),
    ("bob,dog,2", "bob,dog,nan", "line 3: size must be a finite number"),
    ("bob,dog,2", "bob,dog,1e99", "line 3: size must be a finite number"),
    ("bob,dog,2", "bob,dog", "nodes.csv, line 3: 4 fields, but the header has"),
    ("3.5,\n", "3.5,train\n", "line 5: split is 'train', but label is empty"),
    (",val", ",other", "nodes.csv, line 4: split is 'other', which is not one"),
    ("id,label", "name,label", "has no column id, it has name, label, size"),
    (",train", ",test", "nodes.csv: no row has the split train"),
    ("dog", "cat", "label has only the class cat; there must be two classes"),
    (NODES, "", "nodes.csv is empty"),
  ],
)
def test_wrong_nodes_are_named_with_their_line(tmp_path, old, new, message):
  with pytest.raises(ValueError, match=message) as caught:
    graph(tmp_path, NODES.replace(old, new))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("edges", "message"),
  [
    (EDGES + "ann,zoe\n", "edges.csv, line 6: target is 'zoe', which is no id"),
    (EDGES + "zoe,ann\n", "edges.csv, line 6: source is 'zoe', which is no id"),
    (EDGES + "ann\n", "edges.csv, line 6: 1 fields, but the header has 2"),
    ("from,to\nann,bob\n", "has no column source or target, it has from, to"),
    ("1,2,9\n3,4,9\n", "the first row must name the columns"),
  ],
)
def test_wrong_edges_are_named_with_their_line(tmp_path, edges, message):
  with pytest.raises(ValueError, match=message):
    graph(tmp_path, NODES, edges)


def test_missing_tables_are_errors(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"there is no folder .*none"):
    load(nodes.load, f"file:{tmp_path / 'none'}")
  source = write(tmp_path, nodes=NODES)
  with pytest.raises(FileNotFoundError, match=r"has no edges\.csv"):
    load(nodes.load, source)


GRAPHS = (
  "id,label,split\ng1,ring,train\ng2,line,train\ng3,ring,test\ng4,line,\n"
)
GRAPH_NODES = """graph,id,x
g2,a,1
g1,a,2
g1,b,3
g2,b,4
g3,z,5
g4,y,6
"""
GRAPH_EDGES = "graph,source,target\ng1,a,b\ng2,b,a\ng1,b,a\n"


def graph_set(folder, graphs=GRAPHS, edges=GRAPH_EDGES, **tables):
  source = write(folder, graphs=graphs, edges=edges, **tables)
  return load(graph_sets.load, source, max_degree=2)


def test_set_of_graphs_in_three_tables(tmp_path):
  found = graph_set(tmp_path, nodes=GRAPH_NODES)
  assert found.class_names == ("line", "ring")
  train, test = found.splits["train"], found.splits["test"]
  assert train.labels.tolist() == [1, 0]
  assert test.labels.tolist() == [1]
  assert [g.features.tolist() for g in train.graphs] == [
    [[2], [3]],
    [[1], [4]],
  ]
  assert [ends(g) for g in train.graphs] == [[(1, 0), (0, 1)]] * 2
  assert test.graphs[0].features.tolist() == [[5]]
  assert ends(test.graphs[0]) == []
  assert train.names[0].endswith(", graph g1")


def test_set_without_splits_is_cut_and_without_features_has_degrees(tmp_path):
  graphs = "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(8))
  edges = "graph,source,target\n" + "".join(
    f"{i},a,b\n{i},b,c\n" for i in range(8)
  )
  source = write(tmp_path, graphs=graphs, edges=edges)
  found = load(graph_sets.load, source, max_degree=2, test_fraction=0.25)
  assert {k: len(v) for k, v in found.splits.items()} == {
    "train": 6,
    "test": 2,
  }
  assert found.splits["train"].graphs[0].features.tolist() == [
    [0, 1, 0],
    [0, 0, 1],
    [0, 1, 0],
  ]


def test_edges_need_no_graph_if_ids_are_unique(tmp_path):
  nodes_table = "graph,id,x\ng1,1,0\ng1,2,0\ng2,3,0\ng2,4,0\ng3,5,0\ng4,6,0\n"
  edges = "source,target\n1,2\n4,3\n"
  found = graph_set(tmp_path, edges=edges, nodes=nodes_table)
  assert [ends(g) for g in found.splits["train"].graphs] == [
    [(1, 0), (0, 1)]
  ] * 2
  with pytest.raises(ValueError, match="line 4: target is '3', which is no id"):
    graph_set(tmp_path, edges=edges + "1,3\n", nodes=nodes_table)
  with pytest.raises(ValueError, match="lacks the column graph, but the node"):
    graph_set(tmp_path, edges=edges, nodes=GRAPH_NODES)


@pytest.mark.parametrize(
  ("table", "text", "message"),
  [
    ("nodes", GRAPH_NODES + "g9,a,1\n", "nodes.csv, line 8: graph is 'g9', wh"),
    (
      "nodes",
      GRAPH_NODES + "g1,a,1\n",
      "line 8: the id 'a' is in line 3 alrea",
    ),
    ("nodes", "graph,id\ng1,a\n", "graphs.csv, line 3: the graph 'g2' has no "),
    ("edges", GRAPH_EDGES + "g9,a,b\n", "edges.csv, line 5: graph is 'g9', wh"),
    (
      "edges",
      GRAPH_EDGES + "g1,a,c\n",
      "edges.csv, line 5: target is 'c', .* of the graph 'g1'",
    ),
    (
      "graphs",
      GRAPHS + "g1,ring,\n",
      "line 6: the id 'g1' is in line 2 alread",
    ),
    ("graphs", GRAPHS.replace("line", "ring"), "label has only the class ring"),
    (
      "graphs",
      GRAPHS.replace("ring,test", "star,test"),
      "graphs.csv, line 4: label is 'star', which is none of the classes line",
    ),
    ("graphs", GRAPHS.replace("ring,test", ",test"), "line 4: label is ''"),
  ],
)
def test_wrong_tables_of_graphs_are_named_with_their_line(
  tmp_path, table, text, message
):
  tables = dict(graphs=GRAPHS, nodes=GRAPH_NODES, edges=GRAPH_EDGES)
  with pytest.raises(ValueError, match=message) as caught:
    graph_set(tmp_path, **(tables | {table: text}))
  assert "\n" not in str(caught.value)


def test_nodes_of_edges_need_a_graph(tmp_path):
  with pytest.raises(
    ValueError, match=r"no column graph.* there is no nodes\.csv"
  ):
    graph_set(tmp_path, edges="source,target\na,b\n")


def test_tables_may_be_compressed(tmp_path):
  first = graph(tmp_path / "a")
  folder = tmp_path / "b"
  folder.mkdir()
  for name, text in (("nodes", NODES), ("edges", EDGES)):
    (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
  assert load(nodes.load, f"file:{folder}").fingerprint == first.fingerprint
  (folder / "nodes.csv").write_text(NODES)
  with pytest.raises(ValueError, match=r"nodes\.csv and nodes\.csv\.gz"):
    load(nodes.load, f"file:{folder}")
