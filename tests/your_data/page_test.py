"""Data that the programs of docs/your-data.md write is asked and trained on."""

import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from tests.your_data import page

ARRAYS = "Pictures and other arrays in an npz file"
NODES = "A graph whose nodes have classes"
GRAPHS = "Graphs with a class each"
LABELED = "Labeled texts in a table: CSV, TSV, JSON Lines, Parquet"


def configs(heading, folder):
  """Writes the data of a section, and yields the configs that train on it."""
  page.write(heading, folder)
  for name, source in page.trainings(heading):
    yield runner.load_config(name, {"data.source": source, "mesh.data": 1})


@pytest.mark.parametrize("heading", [ARRAYS, NODES, GRAPHS])
def test_examples_decide_all_that_is_open(heading, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for config in configs(heading, tmp_path):
    experiment = build(config)
    assert experiment.config["decided"]
    assert {*experiment.data.facts.splits} >= {"train", "valid"}


@pytest.mark.slow
@pytest.mark.parametrize("heading", [ARRAYS, NODES, GRAPHS, LABELED])
def test_examples_are_learned(heading, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for i, config in enumerate(configs(heading, tmp_path)):
    if config["data"]["source"].endswith((".csv", ":club")):
      continue  # Of a few rows.
    result = runner.run(config, tmp_path / f"run{i}")
    metrics = result["best"]["metrics"]
    score = metrics.get("valid/accuracy", metrics.get("valid/pearson"))
    # All of them are easy.
    assert score > 0.6, (config["data"], metrics)
