"""CSV tables as spreadsheets, pandas and people write them."""

import csv
import gzip

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from bitnet_jax.data import splits
from bitnet_jax.data.sources import csvfiles
from bitnet_jax.data.views import arrays, labeled_texts

FIELDS = strategies.text(
  strategies.sampled_from('ab ,;\t\n"é\u2028'), min_size=1, max_size=6
)
ROWS = strategies.lists(strategies.tuples(FIELDS, FIELDS), min_size=1)
IRIS = "width,length,kind\n1,2,rose\n3,4.5,tulip\n1e3,-1,rose\n0,0,tulip\n"


def write(folder, content, name="a.csv"):
  content = content if isinstance(content, bytes) else content.encode()
  pack = gzip.compress if name.endswith(".gz") else bytes
  (folder / name).write_bytes(pack(content))
  return f"file:{folder / name}"


def table(folder, content):
  path = write(folder, content).removeprefix("file:")
  return csvfiles.read(path, splits.NO_CUTS).splits["train"]


def rows(folder, content, *columns):
  read = table(folder, content).read(*columns)
  return list(zip(*read.columns.values(), strict=True))


def features(folder, content, **options):
  cuts = options.pop("cuts", splits.NO_CUTS)
  return arrays.load(write(folder, content), cuts, label="kind", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("tables")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@hypothesis.given(made=ROWS)
@hypothesis.settings(deadline=None, max_examples=30, database=None)
def test_tables_that_are_written_are_read(folder, delimiter, end, made):
  with (folder / "written.csv").open("w", newline="") as file:
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
    writer.writerows([("label", "text"), *made])
  content = (folder / "written.csv").read_bytes()
  assert rows(folder, content, "label", "text") == made


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    ('\ufeff"text","n"\r\n"a","1"\r\n', [("a", "1")]),
    ("text;n\na, b;1\n", [("a, b", "1")]),
    ('"a, b, c";text;n\nx;y;1\n', [("y", "1")]),
    ('text, n\n"a, b", 1\nc, 2\n', [("a, b", "1"), ("c", "2")]),
    # The index of pandas, and columns that it counts.
    (",text,n\n0,a,1\n1,b,2\n", [("a", "1"), ("b", "2")]),
    ("0,1,text,n\n5,6,a,1\n", [("a", "1")]),
    ('\n text ,n\n\na,1\n\n"b\n",2\n\n', [("a", "1"), ("b\n", "2")]),
    ('text,n\na "b" c,1\n', [('a "b" c', "1")]),
  ],
)
def test_ways_to_write_a_table(tmp_path, content, expected):
  assert rows(tmp_path, content, "text", "n") == expected


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("", "is empty: it lacks a header"),
    ("\n\n", "is empty: it lacks a header"),
    ("text,label\n\n", "has a header, but no rows"),
    ("text,label\na,b\nc\n", "line 3: 1 fields, but the header has 2, text, l"),
    ('text\n"a\nb"\nc,d\n', "line 4: 2 .*; a text with ',' in it must be in q"),
    ("text,text\n", "line 1: a column is named twice, 'text' among"),
    ("text,TEXT\n", "'text' and 'TEXT' differ only in case; rename one"),
    (",\na,b\n", "line 1: the first row must name the columns"),
    ("5.1,3.5,rose\n", "but it looks like data, '5.1'"),
    (f"{'long ' * 30},rose\n", "but it looks like data, 'long long"),
    ("<!DOCTYPE html>\n", "is no CSV table: it begins with '<!DOCTYPE html>"),
    ('{"text": 1, "a": 2}', "is no CSV table: it begins with"),
    ('text,n\nx,1\n"a,2\nb,3\n', "line 3: a quote is opened and never closed"),
    ('text,n\n"a "b" c",2\n', "line 2: a field has more text behind its closi"),
    ("text,n\ra,1\r", "line 1: a carriage return is outside of quotes"),
    ("text,n\na\0b,1\n", "line 2 has a NUL character"),
    ("text,n\ncaf\xe9,1\n".encode("latin1"), "line 2 is not UTF-8: .*; save"),
    ("text,n\na,1\n".encode("utf-16"), "line 1 is not UTF-8: .* like UTF-16"),
    (b"\x89PNG\r\n\x1a\n\0", "line 1 is not UTF-8"),
  ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, content, message):
  with pytest.raises(ValueError, match=rf"a\.csv.*{message}"):
    table(tmp_path, content)
  for line in ("fields", "a text with"):  # Numbers come first.
    if line in message:
      return
  with pytest.raises(ValueError, match=rf"a\.csv.*{message}"):
    arrays.load(f"file:{tmp_path / 'a.csv'}", label="text")


def test_missing_column_is_an_error_with_the_nearest(tmp_path):
  source = write(tmp_path, "Text,sentiment\na,b\n")
  with pytest.raises(ValueError) as caught:
    labeled_texts.load(source, columns=("text",))
  assert str(caught.value) == (
    f"{tmp_path}/a.csv has no column text or label, it has Text, sentiment (did"
    " you mean 'Text'?); data.label names the labels, data.column or"
    " data.columns the texts"
  )


def test_long_fields_are_read(tmp_path):
  text = "word," * 40_000  # More than the 128 KB that `csv` allows.
  limit = csv.field_size_limit()
  assert rows(tmp_path, f'text\n"{text}"\n', "text") == [(text,)]
  assert csv.field_size_limit() == limit


def test_classes_that_look_like_mistakes_are_warnings(tmp_path, caplog):
  texts = "text,label\na,pos\nb,Pos\nc, pos\nd,neg\ne,neg\n"
  corpus = labeled_texts.load(write(tmp_path, texts), columns=("text",))
  assert corpus.class_names == (" pos", "Pos", "neg", "pos")
  first, second = caplog.messages
  assert "' pos' and 'Pos' and 'pos' differ only in case or in spaces" in first
  assert "3 of 4 classes have one training example: pos, Pos,  pos" in second


def test_rows_of_numbers_are_features(tmp_path):
  found = features(tmp_path, IRIS)
  train = found.splits["train"]
  np.testing.assert_array_equal(
    train.inputs, np.array([[1, 2], [3, 4.5], [1e3, -1], [0, 0]], np.float32)
  )
  assert (train.inputs.dtype, train.labels.dtype) == (np.float32, np.int32)
  assert train.labels.tolist() == [0, 1, 0, 1]
  assert (found.num_classes, found.class_names) == (2, ("rose", "tulip"))
  assert found.features == ("width", "length")
  (tmp_path / "again").mkdir()
  other = IRIS.replace(",", ";").replace("4.5", "4.50").replace("\n", "\r\n")
  assert features(tmp_path / "again", other).fingerprint == found.fingerprint
  changed = features(tmp_path, IRIS.replace("4.5", "4"))
  assert changed.fingerprint != found.fingerprint


def test_columns_of_features_can_be_chosen(tmp_path):
  content = IRIS.replace("width", "id,width").replace("\n1,", "\nx,1,")
  content = content.replace("\n3", "\ny,3").replace("\n0", "\nz,0")
  content = content.replace("\n1e3", "\nx,1e3")
  found = features(tmp_path, content, columns=("length", "width"))
  assert found.splits["train"].inputs[1].tolist() == [4.5, 3]
  with pytest.raises(ValueError, match="line 2: id is 'x', which is no number"):
    features(tmp_path, content)


def test_splits_have_the_columns_and_classes_of_train(tmp_path):
  write(tmp_path, IRIS, "train.csv.gz")
  source = f"file:{tmp_path}/{{split}}.csv.gz"
  write(tmp_path, "kind,more,length,width\ntulip,x,1,2\n", "dev.csv.gz")
  found = arrays.load(source, label="kind")
  assert found.splits["valid"].inputs.tolist() == [[2, 1]]
  assert found.splits["valid"].labels.tolist() == [1]
  write(tmp_path, "kind,length,width\nlily,1,2\n", "test.csv.gz")
  with pytest.raises(ValueError, match=r"test\.csv\.gz, line 2: kind is 'lily"):
    arrays.load(source, label="kind")
  write(tmp_path, "kind,length\nrose,1\n", "test.csv.gz")
  with pytest.raises(ValueError, match=r"test\.csv\.gz has no column width"):
    arrays.load(source, label="kind")


@pytest.mark.parametrize(
  ("old", "new", "options", "message"),
  [
    ("4.5", "x", {}, "line 3: length is 'x', which is no number; data.columns"),
    ("4.5", "", {}, "line 3: length is empty"),
    ("4.5", "nan", {}, "line 3: length must be a finite number, it is nan"),
    ("4.5", "1e99", {}, "line 3: length must be a finite number, it is inf"),
    ("4.5", '"4,5"', {}, "line 3: length is '4,5', .*decimals need a point"),
    ("2,rose", "2,", {}, "line 2: kind is '', which is none of"),
    ("rose", "tulip", {}, "kind has only the class tulip; there must be two"),
    ("kind", "sort", {}, "no column kind, .*; data.label names that of the cl"),
    ("4", "4", dict(columns=("lenth",)), r"lenth, .*\(did you mean 'length'"),
    ("4", "4", dict(columns=("kind",)), "data.columns has kind, the column of"),
    ("4", "4", dict(num_classes=3), "data.num_classes is 3, but train has 2"),
    ("1,2,rose\n", "1,2,a\n3,4,b\n", {}, "kind is 'rose'|one training example"),
  ],
)
def test_features_that_are_wrong_are_named(
  tmp_path, caplog, old, new, options, message
):
  content = IRIS.replace(old, new)
  if "example" in message:
    features(tmp_path, content)
    assert "3 of 4 classes have one training example: a, b, rose" in caplog.text
    return
  with pytest.raises(ValueError, match=message):
    features(tmp_path, content, **options)


def test_label_with_a_class_for_each_row_is_refused(tmp_path):
  with pytest.raises(ValueError, match="each row has a class of its own in id"):
    arrays.load(write(tmp_path, "id,a\n1,2\n3,4\n5,6\n"), label="id")


def test_table_without_features_is_refused(tmp_path):
  with pytest.raises(ValueError, match="no column of features beside kind"):
    features(tmp_path, "kind\n1\n2\n")


@pytest.mark.parametrize(
  ("num_classes", "names", "labels"),
  [
    (None, ("3", "10"), [1, 0, 0]),
    (11, (*tuple("0123456789"), "10"), [10, 3]),
  ],
)
def test_integers_are_classes_in_their_order(
  tmp_path, num_classes, names, labels
):
  content = "kind,x\n10,0\n3,1\n3,2\n"
  found = features(tmp_path, content, num_classes=num_classes)
  assert found.class_names == names
  assert found.splits["train"].labels.tolist()[: len(labels)] == labels


def test_columns_apply_to_tables_only():
  with pytest.raises(ValueError, match=r"columns=.* applies to tables only"):
    arrays.load("embedded:xor", columns=("a",))


def test_files_of_a_glob_are_one_table_of_features(tmp_path):
  write(tmp_path, IRIS, "1.csv")
  write(tmp_path, "kind,length,width\nrose,7,8\n", "2.csv")
  found = arrays.load(f"file:{tmp_path}/*.csv", label="kind")
  assert found.splits["train"].inputs[-1].tolist() == [8, 7]
  assert found.splits["train"].labels.tolist() == [0, 1, 0, 1, 0]
  write(tmp_path, "kind,length,width\nrose,7,x\n", "2.csv")
  with pytest.raises(ValueError, match=r"2\.csv, line 2: width is 'x'"):
    arrays.load(f"file:{tmp_path}/*.csv", label="kind")
  write(tmp_path, "kind,length,width\nrose,7,nan\n", "2.csv")
  with pytest.raises(ValueError, match=r"2\.csv, line 2: width must be a fini"):
    arrays.load(f"file:{tmp_path}/*.csv", label="kind")


def test_first_row_that_is_an_example_is_a_warning(tmp_path, caplog):
  table(tmp_path, "so good,pos\nbad,neg\ngreat,pos\n")
  (message,) = caplog.messages
  assert "line 3: the first row names the columns, but 'pos' is also" in message
