"""Tables as spreadsheets write them, and as the sets of GLUE are."""

import csv
import json

import hypothesis
import pytest
from hypothesis import strategies

from bitnet_jax.data import splits
from bitnet_jax.data.sources import jsonl, tsv

READERS = {"tsv": tsv.read, "jsonl": jsonl.read}
FIELDS = strategies.text(
  strategies.sampled_from('ab \t\n"é,\u2028'), min_size=1, max_size=6
)
ROWS = strategies.lists(strategies.tuples(FIELDS, FIELDS), min_size=1)


def read(folder, content, columns=("label", "text"), kind="tsv"):
  path = folder / f"a.{kind}"
  path.write_bytes(content.encode())
  source = READERS[kind](str(path), splits.NO_CUTS)
  table = source.splits["train"].read(*columns)
  return table, list(zip(*(table.columns[c] for c in columns), strict=True))


def written(folder, rows, **options):
  """What `csv` writes, pandas too, which leaves the quoting to it."""
  with (folder / "written.tsv").open("w", newline="") as file:
    writer = csv.writer(file, delimiter="\t", **options)
    writer.writerows([("label", "text"), *rows])
  return (folder / "written.tsv").read_bytes().decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("tables")


@pytest.mark.parametrize("quoting", ["QUOTE_MINIMAL", "QUOTE_ALL"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@hypothesis.given(rows=ROWS)
@hypothesis.settings(deadline=None, max_examples=60, database=None)
@hypothesis.example(rows=[("a", 'he said "yes"')])
@hypothesis.example(rows=[("a", 'b\tc\nd "e"')])
def test_tables_that_are_written_are_read(folder, quoting, end, rows):
  options = {"quoting": getattr(csv, quoting), "lineterminator": end}
  _, found = read(folder, written(folder, rows, **options))
  assert found == rows


# Sentences of MRPC, SST-2 and CoLA, as published: no field is quoted.
BARE = [
  ("1", '"That \'s great , " he said .'),
  ("0", 'He said , " no . "'),
  ("1", '"'),
  ("0", '5 " disks'),
  ("1", '" yes "'),
  ("0", "''' ``"),
]


@hypothesis.given(rows=strategies.permutations(BARE))
@hypothesis.settings(deadline=None, max_examples=30, database=None)
def test_quotes_of_texts_are_text(folder, rows):
  content = "".join(f"{a}\t{b}\n" for a, b in (("label", "text"), *rows))
  _, found = read(folder, content)
  assert found == rows


@pytest.mark.parametrize(
  ("content", "rows", "how"),
  [
    ('label\ttext\n1\t"hello"\n', [("1", '"hello"')], "with"),
    ('label\ttext\n1\t"hello"\n0\ta "b"\n', None, "with"),
    ('"label"\t"text"\n"1"\t"hello"\n', [("1", "hello")], "without"),
    ('label\ttext\n1\t"""hi"""\n', [("1", '"hi"')], "without"),
    ('label\ttext\n1\t"a\tb"\n', [("1", "a\tb")], None),
    ('label\ttext\n1\ta "b"\n', [("1", 'a "b"')], None),
  ],
)
def test_what_can_be_read_in_two_ways_is_a_warning(
  tmp_path, caplog, content, rows, how
):
  _, found = read(tmp_path, content)
  if rows is not None:
    assert found == rows
  expected = 0 if how is None else 1
  assert len(caplog.records) == expected
  if how is not None:
    assert "can be read in two ways" in caplog.text
    assert f"it is read {how} them" in caplog.text


def test_multi_line_texts_of_one_column_are_rows(tmp_path, caplog):
  content = 'text\n"one\ntwo"\nthree\n'
  _, found = read(tmp_path, content, columns=("text",))
  assert found == [("one\ntwo",), ("three",)]
  assert "with the quotes around fields (3 rows) or without (2" in caplog.text


def test_long_fields_are_read(tmp_path):
  text = "word\t" * 40_000  # More than the 128 KB that `csv` allows.
  limit = csv.field_size_limit()
  _, found = read(tmp_path, written(tmp_path, [("1", text)]))
  assert found == [("1", text)]
  assert csv.field_size_limit() == limit


def test_rows_are_named_by_the_line_they_begin_with(tmp_path):
  content = 'label\ttext\n1\t"a\nb\tc"\n0\t\n'
  table, _ = read(tmp_path, content)
  with pytest.raises(ValueError, match=r"a\.tsv, line 4: text is empty"):
    table.texts("text")
  with pytest.raises(
    ValueError, match="line 4: 1 fields, but the header has 2"
  ):
    read(tmp_path, 'label\ttext\n1\t"a\nb\tc"\n0\n')


@pytest.mark.parametrize("blank", ["", "\n", "\n\n\n", "\r\n\r\n"])
def test_blank_lines_at_the_end_are_no_rows(tmp_path, blank):
  for content in ("label\ttext\n1\ta\n", 'label\ttext\n1\t"a"""\n'):
    _, found = read(tmp_path, content + blank)
    assert len(found) == 1
  with pytest.raises(
    ValueError, match="line 2: 1 fields, but the header has 2"
  ):
    read(tmp_path, "label\ttext\n\n1\ta\n")


def test_blank_lines_of_jsonl_are_no_rows(tmp_path):
  lines = [json.dumps({"label": i, "text": "ab"[i]}) for i in range(2)]
  content = f"\n{lines[0]}\n\n \n{lines[1]}\n\n"
  table, found = read(tmp_path, content, kind="jsonl")
  assert found == [(0, "a"), (1, "b")]
  assert table.place(1).endswith("a.jsonl, line 5")
  with pytest.raises(ValueError, match=r"a\.jsonl, line 3 is not JSON"):
    read(tmp_path, f"{lines[0]}\n\n{{\n", kind="jsonl")


def test_byte_order_marks_are_no_part_of_a_header(tmp_path):
  _, found = read(tmp_path, '\ufeff"label"\t"text"\r\n"1"\t"a"\r\n')
  assert found == [("1", "a")]


@pytest.mark.parametrize("number", ["9" * 400, str(2**63), "9" * 5000])
def test_integer_of_many_digits_is_named(tmp_path, number):
  path = tmp_path / "a.jsonl"
  path.write_text(f'{{"score": 1}}\n{{"score": {number}}}\n')
  with pytest.raises(ValueError, match=r"a\.jsonl, line 2"):
    jsonl.read(str(path), splits.NO_CUTS).splits["train"].read("score")


def test_line_that_is_nested_deep_is_named(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"score": 1}\n' + "[" * 200_000 + "\n")
  with pytest.raises(ValueError, match=r"a\.jsonl, line 2 is not JSON"):
    jsonl.read(str(path), splits.NO_CUTS).splits["train"].read("score")
