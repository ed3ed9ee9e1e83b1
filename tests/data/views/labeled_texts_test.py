import gzip
import json

import numpy as np
import pytest

from bitnet_jax.data.views import labeled_texts
from tests.data import loading


def load(source, **options):
  return loading.load(labeled_texts.load, source, **options)


COLUMNS = dict(columns=("a", "b"))


def write(path, content):
  pack = gzip.compress if path.suffix == ".gz" else bytes
  path.write_bytes(pack(content.encode()))
  return f"file:{path}"


def tsv(path, rows, header=("label", "a", "b")):
  lines = ["\t".join(row) for row in (header, *rows)]
  return write(path, "\n".join(lines) + "\n")


def test_tsv_gives_texts_and_classes(tmp_path):
  tsv(tmp_path / "train.tsv", [("yes", '"x', "y"), ("no", "z", "w")])
  tsv(tmp_path / "dev.tsv", [("no", "v", "u")])
  corpus = load(f"file:{tmp_path}/{{split}}.tsv", **COLUMNS)
  assert corpus.class_names == ("no", "yes")
  train = corpus.splits["train"]
  assert train.texts == (['"x', "z"], ["y", "w"])
  assert train.labels.tolist() == [1, 0]
  assert train.labels.dtype == np.int32
  assert corpus.splits["valid"].texts == (["v"], ["u"])
  assert corpus.splits.keys() == {"train", "valid"}


def test_jsonl_gives_the_same(tmp_path):
  rows = [("10", "x"), ("9", "y"), ("10", "z")]
  source = tsv(tmp_path / "a.tsv.gz", rows, header=("label", "a"))
  expected = load(source, columns=("a",))
  objects = [{"a": text, "label": int(label)} for label, text in rows]
  source = write(
    tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in objects)
  )
  corpus = load(source, columns=("a",))
  assert corpus.class_names == expected.class_names == ("9", "10")
  assert corpus.splits["train"].labels.tolist() == [1, 0, 1]
  assert corpus.fingerprint == expected.fingerprint


def test_classes_can_be_given(tmp_path):
  source = tsv(tmp_path / "a.tsv", [("no", "x", "y")])
  corpus = load(source, class_names=("yes", "no", "maybe"), **COLUMNS)
  assert corpus.class_names == ("yes", "no", "maybe")
  assert corpus.splits["train"].labels.tolist() == [1]


def test_labels_can_be_numbers(tmp_path):
  rows = [("2.5", "x", "y"), ("-1e1", "z", "w"), ("0", "v", "u")] * 4
  corpus = load(
    tsv(tmp_path / "a.tsv", rows),
    regression=True,
    valid_fraction=0.25,
    **COLUMNS,
  )
  assert corpus.class_names == ()
  sizes = {key: len(split) for key, split in corpus.splits.items()}
  assert sizes == {"train": 9, "valid": 3}
  for split in corpus.splits.values():
    assert split.labels.dtype == np.float32
    expected = {"x": 2.5, "z": -10.0, "v": 0.0}
    assert [expected[text] for text in split.texts[0]] == list(split.labels)


def test_cuts_take_the_same_share_of_each_class(tmp_path):
  rows = [("ab"[i % 10 == 0], f"x{i}", "y") for i in range(100)]
  source = tsv(tmp_path / "a.tsv", rows)
  corpus = load(source, test_fraction=0.2, **COLUMNS)
  test = corpus.splits["test"]
  assert np.bincount(test.labels).tolist() == [18, 2]
  for text, label in zip(test.texts[0], test.labels, strict=True):
    assert label == (int(text[1:]) % 10 == 0)


def text_gcn(folder, index, documents, which="clean"):
  write(folder / "set.index.tsv.gz", index)
  write(folder / f"set.{which}.txt", documents)
  return f"textgcn:{folder}/set.{which}"


def test_text_gcn_has_an_index(tmp_path):
  index = "0\ttest\tb\n1\ttrain\ta\n2\ttrain\tb\n"
  source = text_gcn(tmp_path, index, "x y\nz\nw\n", "raw")
  corpus = load(source)
  assert corpus.class_names == ("a", "b")
  assert corpus.splits["train"].texts == (["z", "w"],)
  assert corpus.splits["train"].labels.tolist() == [0, 1]
  assert corpus.splits["test"].texts == (["x y"],)
  assert corpus.splits["test"].labels.tolist() == [1]


@pytest.mark.parametrize(
  ("index", "documents", "message"),
  [
    ("0\ttrain\ta\n", "x\ny\n", r"set\.clean\.txt has 2 lines, but .* has 1"),
    ("0\ttrain\ta\n1\ttest\n", "x\ny\n", "tsv.gz, line 2: 2 fields, not id"),
    ("0\ttrain\ta\n1\ttest\ta\n", "x\n\n", r"clean\.txt, line 2: text is emp"),
    ("0\ttrain\ta\n", "x\n", "has the splits train, not train, test"),
    (
      "0\ttrain\ta\n1\ttest\tb\n",
      "x\ny\n",
      "index.tsv.gz, line 2: label is 'b', which is none .* a",
    ),
  ],
)
def test_text_gcn_that_is_not_as_it_must_be_is_an_error(
  tmp_path, index, documents, message
):
  with pytest.raises(ValueError, match=message):
    load(text_gcn(tmp_path, index, documents))


@pytest.mark.parametrize(
  ("rows", "options", "message"),
  [
    ([("1", "x")], COLUMNS, "line 2: 2 fields, but the header has 3"),
    ([("1", "x", "y"), ("1", "", "y")], COLUMNS, "line 3: a is empty"),
    ([], COLUMNS, "train has no example"),
    ([("1", "x", "y")], {}, "needs columns: where the texts stand"),
    ([("1", "x", "y")], dict(columns=("c",)), "no column c, it has label, a"),
    ([("1", "x", "y")], COLUMNS | dict(label="d"), "no column d"),
    ([("1", "x", "y")], dict(columns="aba"), "number of columns is 3"),
    (
      [("1", "x", "y"), ("2", "z", "w")],
      COLUMNS | dict(class_names=("0", "1")),
      r"train\.tsv, line 3: label is '2', .* none of the classes 0, 1",
    ),
    (
      [("1", "x", "y"), ("one", "z", "w")],
      COLUMNS | dict(regression=True),
      "line 3: label must be a finite number, it is 'one'",
    ),
    ([("nan", "x", "y")], COLUMNS | dict(regression=True), "finite number"),
    (
      [("1", "x", "y")],
      COLUMNS | dict(regression=True, class_names=("0",)),
      "regression has no class_names",
    ),
    ([("", "x", "y")], COLUMNS, "line 2: label is '', which is none"),
  ],
)
def test_rows_that_are_not_as_they_must_be_are_errors(
  tmp_path, rows, options, message
):
  with pytest.raises(ValueError, match=message):
    load(tsv(tmp_path / "train.tsv", rows), **options)


def test_class_that_training_lacks_is_an_error_with_its_line(tmp_path):
  tsv(tmp_path / "train.tsv", [("a", "x", "y")])
  tsv(tmp_path / "test.tsv", [("a", "x", "y"), ("b", "x", "y")])
  with pytest.raises(ValueError, match=r"test\.tsv, line 3: label is 'b'"):
    load(f"file:{tmp_path}/{{split}}.tsv", **COLUMNS)


@pytest.mark.parametrize(
  ("source", "message"),
  [
    ("embedded:pydoc", "unknown source of labeled texts 'embedded:pydoc'"),
    ("file:a.txt", r"file:a.txt.*PATH\.tsv\[.*PATH\.jsonl\["),
    ("textgcn:a/R8", r"textgcn:a/R8.*NAME\.raw, .*NAME\.clean"),
  ],
)
def test_unknown_source_is_an_error(source, message):
  with pytest.raises(ValueError, match=message):
    load(source, **COLUMNS)


@pytest.mark.parametrize("regression", [False, True])
def test_split_with_hidden_labels_is_left_out(tmp_path, caplog, regression):
  caplog.set_level("INFO", logger="absl")
  options = COLUMNS | dict(regression=regression)
  tsv(tmp_path / "train.tsv", [("1", "x", "y"), ("0", "z", "w")])
  tsv(tmp_path / "dev.tsv", [("1", "v", "u")])
  tsv(tmp_path / "test.tsv", [("-1", "v", "u"), ("-1.0", "v", "u")])
  source = f"file:{tmp_path}/{{split}}.tsv"
  corpus = load(source, **options)
  assert corpus.splits.keys() == {"train", "valid"}
  assert f"Left test of {source} out: it has no labels" in caplog.text
  # Where training has it too, -1 is a label.
  tsv(tmp_path / "train.tsv", [("1", "x", "y"), ("-1", "z", "w")])
  tsv(tmp_path / "test.tsv", [("-1", "v", "u")])
  corpus = load(source, **options)
  assert corpus.splits.keys() == {"train", "valid", "test"}
  tsv(tmp_path / "train.tsv", [("-1", "x", "y")])
  with pytest.raises(ValueError, match="train has no labels, they all are -1"):
    load(source, **options)


def test_some_hidden_labels_are_a_warning(tmp_path, caplog):
  tsv(tmp_path / "train.tsv", [("4.5", "x", "y"), ("0", "z", "w")])
  tsv(tmp_path / "test.tsv", [("-1", "v", "u"), ("2", "v", "u")])
  source = f"file:{tmp_path}/{{split}}.tsv"
  load(source, regression=True, **COLUMNS)
  assert f"1 of 2 labels in test of {source} are -1" in caplog.text


def test_published_sets_have_their_published_sizes(data_dir):
  corpus = load(f"textgcn:{data_dir}/text_gcn/R8.raw")
  sizes = {key: len(split) for key, split in corpus.splits.items()}
  assert sizes == {"train": 5485, "test": 2189}
  assert len(corpus.class_names) == 8
  corpus = load(
    f"file:{data_dir}/glue_small/stsb_{{split}}.tsv.gz",
    columns=("sentence1", "sentence2"),
    label="score",
    regression=True,
  )
  sizes = {key: len(split) for key, split in corpus.splits.items()}
  assert sizes == {"train": 5749, "valid": 1500, "test": 1379}
  assert corpus.splits["valid"].labels.max() == 5
