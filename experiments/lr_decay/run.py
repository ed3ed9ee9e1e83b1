"""Which learning rates, weight decays and schedules suit ternary nets?

python experiments/lr_decay/run.py --data=DATA --workdir=runs/lr_decay

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from itertools import product
from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import rates

XOR: dict[str, Any] = {"total_steps": 4, "eval_every": 2}
SHARED = {"total_steps": 300, "data.test_fraction": 0.0}
SHARED["checkpoint.keep_best"] = 0
DECODER: dict[str, Any] = SHARED | {
  **{"data.hold_out": "ends", "data.valid_fraction": 0.02, "eval_every": 60},
  **{"data.tokenizer": "bytes", "data.seq_len": 32, "data.vocab_size": None},
  **{"model.hidden": 32, "model.mlp_width": 64, "model.num_layers": 2},
  **{"model.num_heads": 2, "model.num_kv_heads": 2},
  **{"data.source": "file:DATA/books/valid.txt.xz"},
  "data.eval_batch_size": 256,
}
CNN: dict[str, Any] = SHARED | {
  **{"data.valid_fraction": 0.4, "data.eval_batch_size": 719, "eval_every": 30},
  **{"model.channels": (8, 16), "model.dense_width": 32, "model.dropout": 0.0},
}
BOOKS: dict[str, Any] = {"data.source": "file:DATA/books/{split}.txt.xz"}
# Seeds and families of each scale; the first family also trains in two stages.
SCALES: dict[str, Any] = {
  "ci": (2, {"mlp": ("xor_mlp.py", XOR)}),
  "cpu": (10, {"decoder": ("pydoc_decoder.py", DECODER)}),
  "paper": (5, {"decoder": ("reloaded_decoder.py:12M", BOOKS)}),
}
SCALES["cpu"][1]["cnn"] = ("digits_cnn.py", CNN)
PRECISIONS = ("float32", "b158", "b158_median")
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
KEYS = ("family", "precision", "schedule", "rate", "decay")


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns grids of rates and decays, and the kinds of two stages."""
  seeds, families = SCALES[scale]
  grid = RATES[3:5] if scale == "ci" else RATES
  first, rest = [*families][:1], [*families][1:]
  cells = [
    *product(families, PRECISIONS, ["cosine"], grid, [0.0, 0.1]),
    *product(rest, PRECISIONS, ["cosine"], grid, [0.01]),
    *product(families, PRECISIONS, ["constant"], grid[2:], [0.0]),
    *product(first, ["b158"], rates.STAGES, grid[-3:-1], [0.1]),
  ]
  found = []
  for values in cells:
    cell: dict[str, Any] = dict(zip(KEYS, values, strict=True))
    config, sizes = families[cell["family"]]
    changes = {**sizes, **studies.PRECISIONS[cell["precision"]]}
    changes |= rates.overrides(cell)
    if "data.source" in sizes:
      changes["data.source"] = sizes["data.source"].replace("DATA", data)
    path = f"configs/{config}"
    found += [studies.Case(path, cell, i, changes) for i in range(seeds)]
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns bands of rates, what decay costs, and what stages gain."""
  return rates.findings(runs, metric="valid/loss")


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
