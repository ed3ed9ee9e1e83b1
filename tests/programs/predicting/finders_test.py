"""Which inputs a command line names, and what is said of mistakes."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from bitnet_jax.programs.predicting import finders, inputs


def family(reads, columns=(), label=None):
  """Returns what finders ask of a model."""
  return types.SimpleNamespace(
    reads=reads,
    columns=columns,
    label=label,
    read_picture=lambda path: np.asarray(Image.open(path)),
    node_names=lambda: ("ann", "bob"),
  )


TEXTS = family("texts", ("text",))
PAIRS = family("texts", ("first", "second"))
PICTURES = family("pictures")
FEATURES = family("features", ("width", "height"))


def found(model, **request):
  """Returns names and values of the inputs of a request."""
  items = finders.find(inputs.Request(**request), model)
  return [(item.name, item.read()) for item in items]


def values(model, **request):
  return [value for _, value in found(model, **request)]


@pytest.fixture
def give(monkeypatch):
  """Returns ``give(text)``, which puts a text on standard input."""

  def give(text):
    stream = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
    monkeypatch.setattr(sys, "stdin", stream)

  return give


def test_texts_come_in_the_order_of_the_command_line(tmp_path, give):
  whole = tmp_path / "whole é.txt"
  whole.write_text("a\nb\n")
  lines = tmp_path / "lines.txt"
  lines.write_text("c\r\nd\n")
  give("e\nf")
  assert values(
    TEXTS,
    places=["two words", str(whole), "-"],
    lists=[str(lines)],
    texts=["reviews/1.txt"],
  ) == [
    (text,)
    for text in ("two words", "a\nb\n", "e", "f", "reviews/1.txt", "c", "d")
  ]


def test_arguments_that_are_no_paths_are_texts():
  texts = ["", " ", "~nobody said so", "a\0b", "long text " * 999, "what?"]
  assert values(TEXTS, places=texts) == [(text,) for text in texts]
  with pytest.raises(ValueError, match="an input is empty: it must name"):
    values(PICTURES, places=[""])


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("a.csv", 'label,text\nx,"one, two"\ny,three\n'),
    ("a.tsv", "label\ttext\nx\tone, two\ny\tthree\n"),
    ("a.jsonl", '{"text": "one, two"}\n\n{"text": "three"}\n'),
  ],
)
@pytest.mark.parametrize("place", ["places", "lists", "stdin"])
def test_tables_are_read_by_the_columns_of_the_run(
  tmp_path, give, name, content, place
):
  file = tmp_path / name
  file.write_text(content)
  request = {place: [str(file)]}
  if place == "stdin":
    give(content)
    request = dict(lists=["-"], format=file.suffix[1:])
  assert values(TEXTS, **request) == [("one, two",), ("three",)]
  if name != "a.jsonl" and place != "stdin":
    labels = values(TEXTS, **request | {"columns": ["label"]})
    assert labels == [("x",), ("y",)]


def test_rows_are_named_by_file_and_line(tmp_path, give):
  file = tmp_path / "a.csv"
  file.write_text("text\na\n\nb\n")
  (_, second) = found(TEXTS, places=[str(file)])
  assert second[0] == f"{file}, line 4"
  give("text\na\n")
  ((name, _),) = found(TEXTS, places=["-"], format="csv")
  assert name == "standard input, line 2"


def test_pairs_are_two_texts_two_columns_or_around_a_tab(tmp_path, give):
  assert values(PAIRS, texts=["a", "b", "c", "d"]) == [("a", "b"), ("c", "d")]
  file = tmp_path / "a.csv"
  file.write_text("second,first\nb,a\n")
  assert values(PAIRS, places=[str(file)]) == [("a", "b")]
  give("a\tb\n")
  assert values(PAIRS, places=["-"]) == [("a", "b")]


def test_pictures_are_files_folders_patterns_and_lists(tmp_path, give):
  names = ["b/2.png", "b/1.PNG", "a.png"]
  for i, name in enumerate(names):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    Image.new("L", (2, 2), i).save(path)
  (tmp_path / "b" / "notes.md").write_text("no picture")
  (tmp_path / "b" / "Thumbs.db").write_text("no picture")
  folder, one = str(tmp_path / "b"), str(tmp_path / "a.png")
  give(f"{one}\n")
  shades = [
    int(value[0, 0])
    for value in values(PICTURES, places=[folder, one, f"{folder}/*.png", "-"])
  ]
  assert shades == [1, 0, 2, 0, 2]
  (tmp_path / "list.txt").write_text(f"{one}\n{folder}/2.png\n")
  listed = values(PICTURES, lists=[str(tmp_path / "list.txt")])
  assert [int(value[0, 0]) for value in listed] == [2, 0]


@pytest.mark.parametrize("member", ["x", "inputs", "x_test", "anything"])
def test_arrays_are_the_rows_of_a_member(tmp_path, member):
  arrays = np.arange(6.0).reshape(2, 3)
  np.savez(tmp_path / "a.npz", **{member: arrays})
  read = found(FEATURES, places=[str(tmp_path / "a.npz")])
  assert read[1][0] == f"{tmp_path}/a.npz, {member}[1]"
  np.testing.assert_array_equal([value for _, value in read], arrays)


def test_features_are_read_by_name_or_without_the_label(tmp_path, give):
  file = tmp_path / "a.csv"
  file.write_text("height,kind,width\n2,a,1\n4,b,3\n")
  rows = values(FEATURES, places=[str(file)])
  np.testing.assert_array_equal(rows, np.float32([[1, 2], [3, 4]]))
  unnamed = family("features", label="kind")
  give(file.read_text())
  rows = values(unnamed, places=["-"])
  np.testing.assert_array_equal(rows, np.float32([[2, 1], [4, 3]]))


def test_nodes_are_all_or_those_that_are_named(give):
  nodes = family("nodes")
  assert values(nodes) == [0, 1]
  give("ann\n")
  assert values(nodes, places=["bob", "-"]) == [1, 0]
  with pytest.raises(ValueError, match=r"no node 'bop' \(did you mean 'bob'"):
    values(nodes, places=["bop"])


@pytest.mark.parametrize(
  ("model", "request_of", "message"),
  [
    (TEXTS, {}, "there is no input: give files"),
    (TEXTS, {"places": ["nothere.txt"]}, "no file nothere.txt; --text='noth"),
    (TEXTS, {"lists": ["nothere.txt"]}, "no file .*nothere.txt"),
    (TEXTS, {"places": ["-", "-"]}, "- .standard input. is given twice"),
    (TEXTS, {"places": ["{}/a.png"]}, "reads texts; .*a.png is a picture"),
    (TEXTS, {"places": ["{}"]}, "folder .* holds no file that ends in .txt"),
    (TEXTS, {"lists": ["{}/empty"]}, "empty is empty"),
    (TEXTS, {"lists": ["{}/a.csv"]}, "no column text, it has a, b; --column"),
    (TEXTS, {"lists": ["x"], "format": "xls"}, "--format is 'xls', which is"),
    (TEXTS, {"places": ["{}/head.csv"]}, "head.csv has a header, but no rows"),
    (PAIRS, {"texts": ["a"]}, r"pairs \(first, second\): give two texts .*1"),
    (PAIRS, {"places": ["{}/a.txt"]}, "pairs .*, not single texts such as"),
    (PAIRS, {"lists": ["{}/a.txt"]}, "a.txt, line 1: 1 texts; .* a tab"),
    (PICTURES, {"texts": ["a"]}, "the model reads pictures, not texts"),
    (PICTURES, {"places": ["{}/a.csv"]}, "pictures, which .*a.csv is not; a"),
    (PICTURES, {"places": ["{}"]}, "holds no file that ends in .png"),
    (PICTURES, {"lists": ["{}/a.csv"]}, "the model reads pictures, not tables"),
    (FEATURES, {"places": ["{}/a.png"]}, "rows of features; .*a.png does not"),
    (FEATURES, {"places": ["{}/a.csv"]}, "no column width or height"),
    (FEATURES, {"places": ["{}/bad.csv"]}, "width is 'x', not a number"),
    (FEATURES, {"places": ["{}/b.npz"]}, "none of the members inputs, x, "),
    (
      FEATURES,
      {"places": ["{}/c.npz"]},
      r"must be .n, .* and not empty",
    ),
    (family("graphs"), {"places": ["{}/a.csv"]}, "graphs, in .npz files; not"),
  ],
)
def test_mistake_is_told_in_one_line(tmp_path, model, request_of, message):
  (tmp_path / "empty").touch()
  (tmp_path / "b").mkdir()
  for name, text in {
    "a.csv": "a,b\n1,2\n",
    "head.csv": "text,b\n",
    "bad.csv": "width,height\nx,1\n",
  }.items():
    (tmp_path / name).write_text(text)
  np.savez(tmp_path / "b.npz", a=[[1]], b=[[1]])
  np.savez(tmp_path / "c.npz", x=[1, 2])
  (tmp_path / "a.png").write_bytes(b"?")
  in_use = request_of
  folder = tmp_path
  if "holds no file" in message:
    folder = tmp_path / "b"
  if "{}/a.txt" in str(request_of):
    (tmp_path / "a.txt").write_text("one\n")
  in_use = {
    key: [v.format(folder) for v in value] if isinstance(value, list) else value
    for key, value in request_of.items()
  }
  with pytest.raises((OSError, ValueError), match=message) as caught:
    values(model, **in_use)
  assert "\n" not in f"{caught.value}"


def test_terminal_is_no_standard_input(monkeypatch):
  terminal = types.SimpleNamespace(isatty=lambda: True)
  monkeypatch.setattr(sys, "stdin", terminal)
  with pytest.raises(ValueError, match="- reads standard input, which is a te"):
    finders.find(inputs.Request(places=["-"]), TEXTS)
