"""When should training switch from 16 to 1.58 bits, and how?

python experiments/switch/run.py --data=DATA --workdir=runs/switch

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import switches

XOR: dict[str, Any] = {"log_every": 1, "total_steps": 10, "eval_every": 5}
DECODER: dict[str, Any] = {
  **{"data.hold_out": "ends", "data.valid_fraction": 0.02, "eval_every": 60},
  **{"data.eval_batch_size": 256, "checkpoint.keep_best": 0},
  **{"data.tokenizer": "bytes", "data.seq_len": 32, "data.vocab_size": None},
  **{"model.hidden": 32, "model.mlp_width": 64, "model.num_layers": 2},
  **{"model.num_heads": 2, "model.num_kv_heads": 2, "log_every": 5},
  **{"data.test_fraction": 0.0, "total_steps": 600},
  **{"optim.learning_rate": 0.01, "optim.final_fraction": 0.1},
}
BOOKS: dict[str, Any] = {"data.source": "file:DATA/books/valid.txt.xz"}
OLMO: dict[str, Any] = {
  "data.source": "file:DATA/books/{split}.txt.xz",
  **{"model.hidden": 2048, "model.num_layers": 16, "model.mlp_width": 8192},
  **{"model.num_heads": 16, "model.num_kv_heads": 16, "total_steps": 10_000},
  **{"optim.learning_rate": 4e-4, "optim.final_fraction": 0.1},
}
# Seeds, config, sizes, and percentages of the steps in 16 bits.
SCALES: dict[str, Any] = {
  "ci": (2, "xor_mlp.py", XOR, (0, 40)),
  "cpu": (10, "pydoc_decoder.py", DECODER | BOOKS, (0, 20, 40, 60, 80, 100)),
  "paper": (5, "reloaded_decoder.py", OLMO, (0, 20, 40, 60, 80, 100)),
}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns runs by when and how they switch."""
  seeds, config, sizes, starts = SCALES[scale]
  between = [start for start in starts if 0 < start < 100]
  cells = [(start, "keep", "none") for start in starts]
  cells += [(start, "keep", "tanh") for start in between]
  cells += [(start, "reset", "none") for start in between]
  if scale != "ci":
    cells.append((0, "keep", "tanh"))
    cells += [(start, "reset", "tanh") for start in between]
  found = []
  for start, optimizer, phase in cells:
    cell = {"start": start, "optimizer": optimizer, "phase": phase}
    changes = sizes | switches.overrides(cell, sizes["total_steps"])
    if "data.source" in sizes:
      changes["data.source"] = sizes["data.source"].replace("DATA", data)
    path = f"configs/{config}"
    found += [studies.Case(path, cell, i, changes) for i in range(seeds)]
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns final losses, spikes and recoveries by when and how they switch."""
  return switches.findings(runs, metric="valid/loss", worst=5.5)


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
