"""A small study, and records without training."""

import json
import pathlib

import pytest

from bitnet_jax import studies
from bitnet_jax.studies import page, records

PAGE = """# Does it learn?

Claims: 7, outside-1

Cells: two.

<!-- end of plan -->

<!-- findings -->
<!-- end -->

Remarks stay.
"""


class Judged:
  """Stands for a verdict of ``bitnet_jax.analysis``."""

  def __init__(self, claim):
    self.claim = claim

  def as_json(self):
    return {
      "claim": self.claim,
      "statement": "More is better",
      "outcome": "holds",
      "effect": 0.51234567,
      "interval": [0.1, None],
      "unit": "points",
      "level": 0.95,
      "seeds": 5,
      "cells": [],
      "seeds_needed": None,
      "reason": "the interval is above 0",
    }


def make_record(cell, seed, *, scale="cpu", diverged=None, **entries):
  """Returns a record of an XOR run."""
  case = studies.Case("configs/xor_mlp.py", cell, seed)
  values = {} if diverged else {"test/accuracy": 0.5 + 0.1 * seed}
  config = {
    "task": {"name": "classification"},
    "model": {"name": "mlp", "width": 8, "depth": 1},
    "seed": seed,
  }
  found = {
    "schema": records.SCHEMA,
    "study": "small",
    "scale": scale,
    "case": case.name,
    "cell": cell,
    "seed": seed,
    "config": config,
    "step": 100,
    "epochs": 10.0,
    "metrics": values,
    "best": None,
    "curves": {"step": [50, 100], "test/accuracy": [0.25, 0.5 + 0.1 * seed]},
    "layers": {},
    "diverged": diverged,
    "plan": page.stamp(PAGE),
    "versions": {},
  }
  unknown = ("run_id", "num_params", "wall_time_s", "date", "commit", "device")
  found |= dict.fromkeys(unknown)
  return {**found, **entries}


def cases(scale, data):
  """Returns the cases of the small study."""
  source = "embedded:xor" if scale == "ci" else f"file:{data}/xor.npz"
  steps = {"total_steps": 4, "eval_every": 2, "log_every": 2}
  return [
    studies.Case(
      "configs/xor_mlp.py",
      {"rate": rate},
      seed,
      {
        **studies.PRECISIONS["b158"],
        **steps,
        "data.source": source,
        "optim.learning_rate": rate,
        "statistics_every": 2,
        "checkpoint_every": 4,
        "steps_per_dispatch": 2,
        "mesh.data": 1,
      },
    )
    for rate in (0.01, 1e38)
    for seed in range(1)
  ]


def findings(runs):
  """Returns findings with a table and a figure."""
  groups = runs.group("rate")
  rows = [[rate, len(of)] for (rate,), of in groups.items()]
  columns = [studies.Column("rate"), studies.Column("runs", unit="1")]
  x = [rate for (rate,) in groups]
  series = studies.Series("b158", x, [len(x)] * len(x))
  axes = (studies.Axis("Rate", log=True), studies.Axis("Runs"))
  return studies.Findings(
    [Judged(7), Judged("outside-1")],
    [studies.Table("counts", "Counts", columns, rows)],
    [studies.Figure("runs", "Runs by rate", "lines", *axes, [series])],
  )


@pytest.fixture
def study(tmp_path):
  """Returns the small study in a folder of its own."""
  folder = tmp_path / "small"
  folder.mkdir()
  (folder / page.PAGE_FILE).write_text(PAGE, encoding="utf-8")
  return studies.Study(f"{folder / 'run.py'}", cases, findings)


def write(path: pathlib.Path, found):
  """Writes records."""
  path.write_text(
    "".join(json.dumps(r) + "\n" for r in found), encoding="utf-8"
  )
