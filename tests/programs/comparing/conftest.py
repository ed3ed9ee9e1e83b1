"""Run folders as training leaves them, made without training."""

import json

import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.folder import records, workdir
from bitnet_jax.train.tasks.facts import ArraySpec, DataFacts, SplitFacts
from tests.train.conftest import CONFIGS, SMALL

DATA = "embedded:digits made up"
FACTS = DataFacts(
  fingerprint=DATA,
  splits={
    "train": SplitFacts(examples=1258),
    "valid": SplitFacts(examples=144),
    "test": SplitFacts(examples=395),
  },
  example={
    "inputs": ArraySpec(shape=(1, 8, 8, 1), dtype="float32"),
    "labels": ArraySpec(shape=(1,), dtype="int32"),
  },
  num_classes=10,
  mean=(0.3,),
  std=(0.4,),
)


@pytest.fixture
def write_run():
  """Returns ``write(folder, accuracy, **overrides)``, with ``__`` for dots.

  With ``accuracy=None`` the run is not finished. Metrics over steps rise to the
  accuracy; codes are recorded unless the recipe is "float".
  """

  def write(folder, accuracy, *, data=DATA, **overrides):
    changes = {
      key.replace("__", "."): value for key, value in overrides.items()
    }
    path = str(CONFIGS / "digits_mlp.py")
    config = runner.load_config(path, SMALL | changes)
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(config))
    workdir.write_config(folder, config, data)
    facts = json.dumps(
      FACTS.to_json() | {"fingerprint": data, "vocabulary": None}
    )
    (folder / "data_facts.json").write_text(facts)
    lines = list(_lines(config, accuracy or 0.5))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    if accuracy is None:
      return folder
    metrics = {
      "valid/accuracy": accuracy - 0.01,
      "valid/loss": 1 - accuracy,
      "test/accuracy": accuracy,
      "test/loss": 1.1 - accuracy,
    }
    best = {name: value + 0.005 for name, value in metrics.items()}
    result = {
      "run_id": records.run_id(config, data),
      "step": config["total_steps"],
      "config": config,
      "metrics": metrics,
      "best": {"step": 8, "metrics": best},
    }
    workdir.write_json(folder / "result.json", result)
    return folder

  return write


def _lines(config, accuracy):
  """Yields metrics of each step."""
  total, seed = config["total_steps"], config["seed"]
  for step in range(1, total + 1):
    line = {
      "step": step,
      "time": 0.1 * step,
      "train/loss": 2 / step + seed / 10,
    }
    if step % config["eval_every"] == 0:
      line["valid/accuracy"] = accuracy * step / total
    if config["quant"]["recipe"] != "float" and step % 3 == 0:
      for layer, zero in (("a", 0.3), ("b", 0.4)):
        line[f"weights/{layer}/zero_fraction"] = zero + seed / 100
        line[f"weights/{layer}/negative_fraction"] = 0.3
        line[f"weights/{layer}/positive_fraction"] = 0.7 - zero - seed / 100
    yield line
