"""Studies as they look on disk, of any size, made by a random generator."""

import json
import math
import pathlib

import numpy as np

from bitnet_jax.analysis import rules

PRECISIONS = {
  "float32": {"recipe": "float"},
  "bfloat16": {"recipe": "float"},
  "b158": {"recipe": "b158"},
  "b158_median": {"recipe": "b158_median"},
}
OUTCOMES = rules.OUTCOMES
FAMILIES = (
  ("classification", "mlp", "embedded:digits"),
  ("classification", "cnn", "file:mnist.npz"),
  ("classification", "vit", "file:cifar10_subset.npz"),
  ("causal_lm", "decoder", "file:books.txt.xz"),
  ("node_classification", "gnn", "file:cora.npz"),
)
PLAN = """# {title}

- **Claim:** 1.58-bit nets need about twice the width. Claims: {claims}
- **Cells:** precision x rate
- **Seeds:** 10, paired
- **Metric:** `valid/accuracy`; **Margin:** 0.5 points; **Test:** paired t

| size | runs |
|---|---:|
| `ci` | 8 |

See [the glossary](../../docs/glossary.md) and ![a figure](figure.svg).

<!-- end of plan -->

<!-- findings -->
stale
<!-- end -->

## Remarks

It ended <b>early</b> & well.
"""


def record(study, cell, seed, *, kind=0, layers=4, rng=None, **more):
  """Returns a record as a study writes it."""
  rng = rng or np.random.default_rng(seed)
  task, model, source = FAMILIES[kind % len(FAMILIES)]
  steps = list(range(40, 1001, 40))
  end = 0.9 + 0.02 * rng.standard_normal()
  decay = [math.exp(-step / 200) for step in steps]
  name = ",".join(f"{k}={v}" for k, v in {**cell, "seed": seed}.items())
  quant = PRECISIONS.get(cell.get("precision"), {"recipe": "b158"})
  dtype = cell.get("precision") == "bfloat16"
  accuracy, loss = round(end, 5), round(0.3 + rng.random() / 10, 5)
  metrics = {"valid/accuracy": accuracy, "valid/loss": loss}
  found = {
    "schema": "bitnet_jax.study/1",
    "study": study,
    "scale": "cpu",
    "case": name,
    "cell": cell,
    "seed": seed,
    "config": {
      "task": {"name": task},
      "model": {"name": model, **({"dtype": "bfloat16"} if dtype else {})},
      "data": {"source": source, "batch_size": 64},
      "quant": quant,
      "optim": {"learning_rate": cell.get("rate", 0.01)},
      "seed": seed,
      "total_steps": 1000,
    },
    "run_id": f"{abs(hash(name)) % 16**12:012x}",
    "step": 1000,
    "epochs": 10.0,
    "num_params": 10_000 * (1 + kind),
    "metrics": metrics,
    "best": {"step": 920, "metrics": metrics},
    "curves": {
      "step": steps,
      "train/loss": [round(0.2 + 2 * d, 5) for d in decay],
      "valid/loss": [round(0.3 + 2 * d, 5) for d in decay],
      "valid/accuracy": [round(end - 0.8 * d, 5) for d in decay],
    },
    "layers": {
      f"layer_{i}/kernel": {
        "zeros": 0.31 + i / 100,
        "negative": 0.345 - i / 200,
        "positive": 0.345 - i / 200,
        "scale": 0.021,
      }
      for i in range(layers)
    },
    "diverged": None,
    "wall_time_s": 12.3,
    "date": "2026-11-30T18:00:00+00:00",
    "versions": {"python": "3.12.1", "jax": "0.12.0"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "device": "1 x cpu",
    "plan": "3f1c2b7a9d10",
  }
  return {**found, **more}


def findings(study, title, claims, rates, *, records):
  """Returns findings with tables and figures of each kind."""
  verdicts = [
    {
      "claim": claim,
      "statement": f"b158 is no worse than float32 in {study} (claim {claim})",
      "outcome": OUTCOMES[i % 4],
      "effect": -0.0123 * (i + 1),
      "interval": [-0.0431, None if i % 4 == 2 else 0.0185],
      "unit": "of accuracy",
      "level": 0.95,
      "seeds": 10,
      "scale": "cpu",
      "cells": "precision=b158"
      if i % 2
      else [
        {
          "name": f"precision=b158,rate={rate}",
          "effect": -0.01 * j,
          "interval": [-0.01 * j - 0.02, -0.01 * j + 0.015],
          "seeds": 10,
          "outcome": OUTCOMES[j % 4],
          "p_value": 0.04,
        }
        for j, rate in enumerate(rates)
      ],
      "seeds_needed": 42 if i % 4 == 3 else None,
      "reason": "The interval has values on both sides of 0.",
    }
    for i, claim in enumerate(claims)
  ]
  rows = [
    [rate, precision, 0.9 + i / 1000, 10]
    for i, rate in enumerate(rates)
    for precision in PRECISIONS
  ]
  series = [
    {
      "name": precision,
      "x": rates,
      "y": [0.8 + 0.1 * j / 4 - 0.01 * k for j in range(len(rates))],
      "low": [0.78 + 0.1 * j / 4 - 0.01 * k for j in range(len(rates))],
      "high": [0.82 + 0.1 * j / 4 - 0.01 * k for j in range(len(rates))],
    }
    for k, precision in enumerate(PRECISIONS)
  ]
  seeds = list(range(5))
  heat = {
    "name": "",
    "x": rates,
    "y": seeds,
    "z": [[0.5 + 0.1 * i - 0.02 * j for i in range(len(rates))] for j in seeds],
  }
  rate, accuracy = {"label": "Rate", "log": True}, {"label": "Accuracy"}
  plain = {"label": "Precision", "log": False}
  bars = {"name": "mean", "x": [*PRECISIONS], "y": [0.9, 0.91, 0.88, 0.89]}
  figures = [
    ("lines", "Accuracy by rate", rate, accuracy, series),
    ("points", "Accuracy by rate, as points", rate, accuracy, series),
    ("bars", "Accuracy by precision", plain, accuracy, [bars]),
    ("heat", "Accuracy by rate and seed", rate, {"label": "Seed"}, [heat]),
  ]
  return {
    "schema": "bitnet_jax.findings/1",
    "study": study,
    "title": title,
    "scale": "cpu",
    "records": records,
    "claims": claims,
    "verdicts": verdicts,
    "tables": [
      {
        "name": "means",
        "title": "Means over seeds",
        "columns": [
          {"name": "rate", "label": "Rate", "unit": "", "digits": None},
          {
            "name": "precision",
            "label": "Precision",
            "unit": "",
            "digits": None,
          },
          {"name": "mean", "label": "Mean", "unit": "of accuracy", "digits": 3},
          {"name": "seeds", "label": "Seeds", "unit": "", "digits": None},
        ],
        "rows": rows,
      }
    ],
    "figures": [
      {"name": kind, "title": title, "kind": kind, "x": x, "y": y, "series": s}
      for kind, title, x, y, s in figures
    ],
  }


def write(root, *, studies=3, records=24, layers=4):
  """Writes studies below a folder.

  Args:
    root: the folder.
    studies: number of them.
    records: number of all records.
    layers: of each record.
  """
  root = pathlib.Path(root)
  rng = np.random.default_rng(0)
  rates = [0.0001, 0.001, 0.01, 0.1]
  each = records // studies
  for i in range(studies):
    slug = f"study_{i}"
    folder = root / slug
    folder.mkdir(parents=True)
    title = f"Does study {i} show that ternary nets learn as well?"
    claims = [2 * i + 1, 2 * i + 2] if i else [1, 2, "outside-1"]
    cells = [{"precision": p, "rate": r} for r in rates for p in PRECISIONS]
    lines = []
    for j in range(each):
      cell = cells[j % len(cells)]
      found = record(
        slug, cell, j // len(cells), kind=i, layers=layers, rng=rng
      )
      if cell["rate"] == 0.1 and j % 5 == 4:
        found |= {"diverged": 321, "metrics": {}, "best": None}
      lines.append(json.dumps(found))
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
    found = findings(slug, title, claims, rates, records=each)
    (folder / "findings.json").write_text(json.dumps(found))
    text = PLAN.format(title=title, claims=", ".join(map(str, claims)))
    (folder / "README.md").write_text(text)
  return root
