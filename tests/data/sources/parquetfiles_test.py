"""Parquet files as pyarrow, pandas and others write them."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bitnet_jax.data import splits
from bitnet_jax.data.sources import csvfiles, parquetfiles
from bitnet_jax.data.views import arrays, documents, labeled_texts, pairs
from bitnet_jax.extras import MissingExtraError

COLUMNS = {"text": ["a", 'b "c"\nd', "é"], "label": ["x", "y", "x"]}
IRIS = {"width": [1.0, 3.0, 0.5], "length": [2, 4, 0], "kind": ["a", "b", "a"]}


def write(folder, columns, name="a.parquet", **options):
  table = columns if isinstance(columns, pa.Table) else pa.table(columns)
  parquet.write_table(table, folder / name, **options)
  return f"file:{folder / name}"


def read(folder, columns, *names):
  path = write(folder, columns).removeprefix("file:")
  return parquetfiles.read(path, splits.NO_CUTS).splits["train"].read(*names)


@pytest.mark.parametrize(
  "kind",
  [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.dictionary(pa.int8(), pa.string()),
  ],
  ids=str,
)
def test_texts_of_every_type_are_those_of_a_csv_table(tmp_path, kind):
  columns = {k: pa.array(v).cast(kind) for k, v in COLUMNS.items()}
  found = labeled_texts.load(write(tmp_path, columns), columns=("text",))
  (tmp_path / "a.csv").write_text('text,label\na,x\n"b ""c""\nd",y\né,x\n')
  source = f"file:{tmp_path / 'a.csv'}"
  expected = labeled_texts.load(source, columns=("text",))
  assert found.fingerprint == expected.fingerprint
  assert found.class_names == expected.class_names == ("x", "y")
  assert found.splits["train"].texts == expected.splits["train"].texts


@pytest.mark.parametrize(
  "labels",
  [
    pa.array([3, 10, 3], pa.int64()),
    pa.array([3, 10, 3], pa.uint8()),
    pa.array(["3", "10", "3"]),
    pa.array([3, 10, 3]).dictionary_encode(),
  ],
)
def test_classes_are_integers_or_words(tmp_path, labels):
  source = write(tmp_path, COLUMNS | {"label": labels})
  corpus = labeled_texts.load(source, columns=("text",))
  assert corpus.class_names == ("3", "10")
  assert corpus.splits["train"].labels.tolist() == [0, 1, 0]


def test_other_views_read_them(tmp_path):
  source = write(tmp_path, COLUMNS | {"score": [0.5, 1, -2]})
  cuts = splits.Cuts(valid_fraction=0.4)
  corpus = documents.load(source, cuts)
  assert [len(s) for s in corpus.splits.values()] == [2, 1]
  found = pairs.load(source, languages=("text", "label")).splits["train"]
  assert found.targets == COLUMNS["label"]
  found = labeled_texts.load(
    source, columns=("text",), label="score", regression=True
  )
  assert found.splits["train"].labels.tolist() == [0.5, 1, -2]


def test_numbers_are_the_features_of_a_csv_table(tmp_path):
  found = arrays.load(write(tmp_path, IRIS), label="kind")
  train = found.splits["train"]
  assert train.inputs.dtype == np.float32
  assert train.inputs.tolist() == [[1, 2], [3, 4], [0.5, 0]]
  assert train.labels.tolist() == [0, 1, 0]
  assert (found.class_names, found.features) == (
    ("a", "b"),
    ("width", "length"),
  )
  lines = ["width,length,kind", "1,2,a", "3.0,4,b", ".5,0,a"]
  (tmp_path / "a.csv").write_text("\n".join(lines))
  expected = arrays.load(f"file:{tmp_path / 'a.csv'}", label="kind")
  assert found.fingerprint == expected.fingerprint


def test_rows_are_read_in_parts(tmp_path, monkeypatch):
  monkeypatch.setattr(parquetfiles, "_ROWS", 2)
  found = arrays.load(write(tmp_path, IRIS, row_group_size=2), label="kind")
  assert found.splits["train"].inputs[:, 0].tolist() == [1, 3, 0.5]
  with pytest.raises(ValueError, match=r"row 3: text is missing \(null\)"):
    read(tmp_path, {"text": ["a", "b", None]}, "text")
  source = write(tmp_path, IRIS | {"width": [1, 2, None]})
  with pytest.raises(ValueError, match=r"row 3: width is missing \(null\)"):
    arrays.load(source, label="kind")


def test_index_of_pandas_is_left_out(tmp_path):
  table = read(tmp_path, IRIS | {"__index_level_0__": [5, 6, 7]}, "kind")
  assert table.columns == {"kind": IRIS["kind"]}
  found = arrays.load(f"file:{tmp_path / 'a.parquet'}", label="kind")
  assert found.features == ("width", "length")


@pytest.mark.parametrize(
  ("columns", "message"),
  [
    ({"text": ["a", None]}, r"row 2: text is missing \(null\)"),
    ({"text": pa.nulls(2)}, r"row 1: text is missing \(null\)"),
    ({"text": [["a"], ["b"]]}, "text holds list<.*>, not texts or numbers"),
    ({"text": [{"a": 1}]}, "text holds struct<a: int64>, not texts or numbers"),
    ({"text": pa.array([1], pa.timestamp("s"))}, "text holds timestamp"),
    ({"text": pa.array([b"\xff"])}, "rows 1 to 1: text is not UTF-8"),
    ({"text": pa.array([], pa.string())}, "has no rows"),
    ({"Text": ["a"]}, r"has no column text, it has Text \(did you mean 'Text"),
    ({"text": ["a"], "TEXT": ["a"]}, "'text' and 'TEXT' differ only in case"),
  ],
)
def test_columns_that_are_wrong_are_named(tmp_path, columns, message):
  with pytest.raises(ValueError, match=rf"a\.parquet.*{message}"):
    read(tmp_path, columns, "text")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"width": ["1", "2", "3"]},
      "width holds string, not numbers; data.columns",
    ),
    ({"width": [[1], [2], [3]]}, "width holds list<.*>, not numbers"),
    ({"width": [1, 2, float("nan")]}, "row 3: width must be a finite number"),
    (
      {"width": [1, 1e99, 3]},
      "row 2: width must be a finite number, it is inf",
    ),
    ({"kind": [[1], [2], [3]]}, "kind holds list<.*>, not texts or numbers"),
    ({"kind": ["a", None, "a"]}, "row 2: kind is missing"),
  ],
)
def test_features_that_are_wrong_are_named(tmp_path, change, message):
  with pytest.raises(ValueError, match=rf"a\.parquet.*{message}"):
    arrays.load(write(tmp_path, IRIS | change), label="kind")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text\na\n" * 9])
def test_what_is_no_parquet_is_an_error(tmp_path, content):
  (tmp_path / "a.parquet").write_bytes(content)
  with pytest.raises(ValueError, match=r"cannot read .*a\.parquet as Parquet"):
    documents.load(f"file:{tmp_path / 'a.parquet'}")


def test_damaged_page_is_an_error(tmp_path):
  source = write(tmp_path, {"text": ["some text"] * 99}, compression="none",
                 write_page_checksum=True)  # fmt: skip
  path = tmp_path / "a.parquet"
  path.write_bytes(path.read_bytes().replace(b"some text", b"soma text", 1))
  with pytest.raises(ValueError, match=r"cannot read .*a\.parquet as Parquet"):
    documents.load(source)


def test_more_rows_than_the_size_allows_are_refused(tmp_path, monkeypatch):
  source = write(tmp_path, {"text": ["a" * 100] * 50_000})
  assert len(documents.load(source).splits["train"]) == 50_000
  monkeypatch.setattr(parquetfiles, "ALWAYS_UNPACKED", 10_000)
  with pytest.raises(ValueError, match=r"a\.parquet.* expands to more than"):
    documents.load(source)
  monkeypatch.setattr(parquetfiles, "ALWAYS_ROWS", 10)
  monkeypatch.setattr(parquetfiles, "MOST_ROWS", 1)
  with pytest.raises(ValueError, match="says to have 50000, too many for its"):
    documents.load(source)


def test_missing_pyarrow_is_named_with_its_extra(tmp_path, monkeypatch):
  source = write(tmp_path, COLUMNS)
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(MissingExtraError, match=r"needs pyarrow: .*\[hf\]"):
    documents.load(source)
  assert csvfiles.read  # Other tables need no extra.


def test_files_of_a_glob_are_one_table(tmp_path):
  write(tmp_path, COLUMNS, "train-00000-of-00002.parquet")
  write(tmp_path, {"text": ["f"], "label": ["y"]}, "train-00001.parquet")
  source = f"file:{tmp_path}/{{split}}-*.parquet"
  corpus = labeled_texts.load(source, columns=("text",))
  assert corpus.splits["train"].texts[0] == [*COLUMNS["text"], "f"]
  write(tmp_path, {"text": [""], "label": ["y"]}, "train-00001.parquet")
  with pytest.raises(ValueError, match=r"001\.parquet, row 1: text is empty"):
    labeled_texts.load(source, columns=("text",))
