"""The tables and folders of docs/your-data.md are read and trained on."""

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
from bitnet_jax.train import build, runner
from tests.train import tiny
from tests.your_data import page

LABELED = "Labeled texts in a table: CSV, TSV, JSON Lines, Parquet"
PAIRS = "Pairs of texts in a table"
FOLDERS = "Folders and globs of text files"
NUMBERS = "Tables of numbers: CSV, Parquet"


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for heading in (LABELED, PAIRS, FOLDERS, NUMBERS):
    page.write(heading, tmp_path)
  packed = tmp_path / "notes" / "more" / "third.txt.gz"
  packed.write_bytes(gzip.compress(packed.read_bytes()))
  return tmp_path


def build_for(config, source, **overrides):
  overrides = {"data.source": source, "total_steps": 2} | overrides
  return build.build(runner.load_config(config, overrides))


EXAMPLES = [(LABELED, 1), (PAIRS, 1), (FOLDERS, 2), (NUMBERS, 1)]


@pytest.mark.parametrize(("heading", "count"), EXAMPLES)
def test_examples_of_the_page_are_read(folder, heading, count):
  trainings = page.trainings(heading)
  assert len(trainings) >= count
  for config, source in trainings[:count]:
    data = build_for(config, source).data
    assert {*data.facts.splits} >= {"train", "valid"}
    (first, *_) = data.train_batch(0).values()
    assert len(first)


@pytest.mark.slow
@pytest.mark.parametrize(("heading", "count"), EXAMPLES)
def test_examples_of_the_page_are_trained_on(folder, heading, count):
  for i, (config, source) in enumerate(page.trainings(heading)):
    small = {"data.source": source, "total_steps": 2}
    if heading != NUMBERS:
      small |= tiny.SIZES | {"model.max_length": 128}
    loaded = runner.load_config(config, small)
    metrics = runner.run(loaded, folder / f"run{i}")["metrics"]
    assert np.isfinite(metrics["valid/loss"])


def test_table_of_the_page_is_the_same_in_every_kind_of_file(folder):
  columns = dict(columns=("text",), label="stars")
  expected = labeled_texts.load("file:reviews.csv", **columns)
  (train,) = expected.splits.values()
  rows = [
    {"text": text, "stars": expected.class_names[label]}
    for text, label in zip(*train.texts, train.labels, strict=True)
  ]
  assert len(rows) == 6
  lines = [json.dumps(row) for row in rows]
  (folder / "reviews.jsonl").write_text("\n".join(lines))
  lines = [
    "\t".join(row.values())
    for row in ({"text": "text", "stars": "stars"}, *rows)
  ]
  (folder / "reviews.tsv").write_text("\n".join(lines))
  parquet.write_table(pyarrow.Table.from_pylist(rows), "reviews.parquet")
  for kind in ("jsonl", "tsv", "parquet"):
    found = labeled_texts.load(f"file:reviews.{kind}", **columns)
    assert found.fingerprint == expected.fingerprint, kind
    assert found.class_names == expected.class_names == ("bad", "good")


@pytest.mark.parametrize(
  ("name", "split", "columns"),
  [
    ("sst2", "dev", ("sentence",)),
    ("mrpc", "test", ("sentence1", "sentence2")),
    ("cola", "dev", ("sentence",)),
  ],
)
def test_published_tables_are_the_same_as_csv_and_parquet(
  tmp_path, name, split, columns
):
  data = os.environ.get("BITNET_JAX_DATA", "")
  file = pathlib.Path(data) / "glue_small" / f"{name}_{split}.tsv.gz"
  if not data or not file.is_file():
    pytest.skip("BITNET_JAX_DATA names no folder of data sets")
  with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
    rows = [line.removesuffix("\n").split("\t") for line in lines]
  for delimiter in ",;":
    with (tmp_path / f"{ord(delimiter)}.csv").open("w", newline="") as table:
      csv.writer(table, delimiter=delimiter).writerows(rows)
  arrow = {k: list(v) for k, *v in zip(*rows, strict=True)}
  parquet.write_table(pyarrow.table(arrow), tmp_path / "a.parquet")
  cuts = Cuts(valid_fraction=0.1, test_fraction=0.2)
  expected = labeled_texts.load(f"file:{file}", cuts, columns=columns)
  for path in tmp_path.iterdir():
    found = labeled_texts.load(f"file:{path}", cuts, columns=columns)
    assert found.fingerprint == expected.fingerprint
    assert found.class_names == expected.class_names
    for key, own in expected.splits.items():
      assert found.splits[key].texts == own.texts
      np.testing.assert_array_equal(found.splits[key].labels, own.labels)
