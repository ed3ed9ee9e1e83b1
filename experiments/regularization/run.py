"""Do ternary weights regularize a net that sees little data many times?

python experiments/regularization/run.py --workdir=runs/regularization

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import gaps

KINDS: dict[tuple[str, str], dict[str, Any]] = {
  ("float32", "none"): {},
  ("float32", "dropout"): {"model.dropout": 0.1},
  ("float32", "decay"): {"optim.weight_decay": 0.1},
  ("b158", "none"): {},
  ("b158_median", "none"): {},
}
PLAIN: dict[str, Any] = {
  "optim.schedule": "constant",
  "optim.weight_decay": 0.0,
}
PLAIN["model.dropout"] = 0.0
DECODER: dict[str, Any] = {
  **{"data.hold_out": "ends", "data.tokenizer": "bytes", "data.seq_len": 64},
  **{"data.eval_batch_size": 128, "checkpoint.keep_best": 0},
  **{"data.valid_fraction": 0.05, "data.test_fraction": 0.9},
  **{"data.vocab_size": None, "model.hidden": 64, "model.mlp_width": 128},
  **{"model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 2},
  **{"total_steps": 1000, "eval_every": 50, "optim.learning_rate": 3e-3},
}
CNN: dict[str, Any] = {"data.valid_fraction": 0.6, "data.test_fraction": 0.3}
CNN |= {"data.eval_batch_size": 539, "checkpoint.keep_best": 0}
CNN |= {"total_steps": 1000, "eval_every": 50, "optim.learning_rate": 3e-3}
XOR: dict[str, Any] = {"total_steps": 4, "eval_every": 2, "log_every": 1}
# Seeds and families of each scale.
SCALES: dict[str, Any] = {
  "ci": (2, {"mlp": ("xor_mlp.py", XOR)}),
  "cpu": (10, {"decoder": ("pydoc_decoder.py", DECODER)}),
  "paper": (5, {"decoder": ("reloaded_decoder.py:12M", {"total_epochs": 10})}),
}
SCALES["cpu"][1]["cnn"] = ("digits_cnn.py", CNN)


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns nets of two families with each kind of regularization."""
  seeds, families = SCALES[scale]
  found = []
  for family, (config, sizes) in families.items():
    for (precision, extra), values in KINDS.items():
      cell = {"family": family, "precision": precision, "extra": extra}
      changes = {**sizes, **PLAIN, **studies.PRECISIONS[precision], **values}
      if scale == "paper":
        changes["data.source"] = f"file:{data}/wikitext2/{{split}}.txt.xz"
      path = f"configs/{config}"
      found += [studies.Case(path, cell, i, changes) for i in range(seeds)]
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns gaps between training and validation, and validation losses."""
  return gaps.findings(runs, worst=5.5, gap_margin=0.05, margin=0.02)


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
