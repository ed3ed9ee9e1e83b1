"""A table has the same examples in every kind of file."""

import csv
import gzip
import json
import os
import pathlib

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from bitnet_jax.data.splits import Cuts
from bitnet_jax.data.views import labeled_texts

ROWS = [
  ("A great film", "good"),
  ('Long, loud and "funny"', "bad"),
  ("Two hours;\nwell spent", "good"),
  ("Not my\ttaste é \u2028 東", "bad"),
]


def write(folder, rows, header):
  """Writes the rows as every kind of file."""
  for delimiter in ",;\t":
    with (folder / f"{ord(delimiter)}.csv").open("w", newline="") as table:
      csv.writer(table, delimiter=delimiter).writerows([header, *rows])
  with (folder / "a.tsv").open("w", newline="") as table:
    csv.writer(table, delimiter="\t").writerows([header, *rows])
  objects = [dict(zip(header, row, strict=True)) for row in rows]
  lines = [json.dumps(row) for row in objects]
  (folder / "a.jsonl").write_text("\n".join(lines))
  parquet.write_table(pyarrow.Table.from_pylist(objects), folder / "a.parquet")


def check_alike(folder, expected, cuts, **options):
  for path in folder.iterdir():
    found = labeled_texts.load(f"file:{path}", cuts, **options)
    assert found.fingerprint == expected.fingerprint, path
    assert found.class_names == expected.class_names
    for key, own in expected.splits.items():
      assert found.splits[key].texts == own.texts
      np.testing.assert_array_equal(found.splits[key].labels, own.labels)


def test_rows_are_the_same_in_every_kind_of_file(tmp_path):
  write(tmp_path, ROWS * 5, ("text", "label"))
  cuts = Cuts(valid_fraction=0.1)
  options = dict(columns=("text",))
  expected = labeled_texts.load(f"file:{tmp_path}/a.jsonl", cuts, **options)
  assert expected.splits["train"].texts[0][0] == "A great film"
  assert expected.class_names == ("bad", "good")
  check_alike(tmp_path, expected, cuts, **options)


@pytest.mark.parametrize(
  ("name", "split", "columns"),
  [
    ("sst2", "dev", ("sentence",)),
    ("mrpc", "test", ("sentence1", "sentence2")),
    ("cola", "dev", ("sentence",)),
  ],
)
def test_published_tables_are_the_same_in_every_kind_of_file(
  tmp_path, name, split, columns
):
  data = os.environ.get("BITNET_JAX_DATA", "")
  file = pathlib.Path(data) / "glue_small" / f"{name}_{split}.tsv.gz"
  if not data or not file.is_file():
    pytest.skip("BITNET_JAX_DATA names no folder of data sets")
  with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
    header, *rows = [line.removesuffix("\n").split("\t") for line in lines]
  write(tmp_path, rows, header)
  cuts = Cuts(valid_fraction=0.1, test_fraction=0.2)
  expected = labeled_texts.load(f"file:{file}", cuts, columns=columns)
  check_alike(tmp_path, expected, cuts, columns=columns)
