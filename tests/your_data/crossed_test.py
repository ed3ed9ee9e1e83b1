"""Runs on own tables: resumed from other files, evaluated, and started from."""

import csv
import shutil

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from bitnet_jax.programs import frozen
from bitnet_jax.train import runner
from tests.train import tiny

ROWS = [
  {
    "text": f"Der {'gute' if i % 2 else 'üble'} Film Nr. {i}",
    "label": "yn"[i % 2],
  }
  for i in range(40)
]


@pytest.mark.slow
def test_run_on_a_csv_table_continues_with_the_same_rows_in_parquet(tmp_path):
  folder = tmp_path / "meine Daten é"
  folder.mkdir()
  with (folder / "a b.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, ("text", "label"), delimiter=";")
    writer.writeheader()
    writer.writerows(ROWS)
  for name, rows in (("0", ROWS[:25]), ("1", ROWS[25:])):
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, folder / f"train-{name}.parquet")
  options = dict(
    data__seq_len=32,
    data__tokenizer="bpe",
    data__vocab_size=300,
    data__lowercase=True,
    data__valid_fraction=0.2,
    data__too_long="cut",
  )

  def config(source, **overrides):
    return tiny.make(
      "classification", f"file:{folder / source}", **options | overrides
    )

  runner.run(config("a b.csv"), tmp_path / "one")
  shutil.copytree(tmp_path / "one", tmp_path / "two")
  longer = runner.run(config("a b.csv", total_steps=8), tmp_path / "one")
  other = runner.run(
    config("{split}-*.parquet", total_steps=8), tmp_path / "two"
  )
  assert longer["run_id"] == other["run_id"]
  assert longer["metrics"] == other["metrics"]
  (folder / "a b.csv").unlink()
  second = config("*.parquet", init_from=str(tmp_path / "one"))
  started = runner.run(second, tmp_path / "three")
  assert np.isfinite(started["metrics"]["valid/loss"])
  frozen.freeze_run(tmp_path / "three", tmp_path / "frozen")
  evaluated = frozen.evaluate_frozen(tmp_path / "frozen")["metrics"]
  np.testing.assert_allclose(
    evaluated["valid/loss"], started["metrics"]["valid/loss"], rtol=1e-4
  )
