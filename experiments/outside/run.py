"""Do claims of others on ternary networks hold with rounded activations?

python experiments/outside/run.py --data=DATA --workdir=runs/outside

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import dataclasses
from itertools import product
from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import families, outside

NETS: dict[str, dict[str, Any]] = {
  "float": {"quant.recipe": "float"},
  "b158": {},
  "first": {"quant.rules": (("head|conv_0_0", "float"),)},
  "distilled": {},
  "channel": {"quant.weights.scale": "channel"},
  "continued": {},
  "twice": {},
  "zero_one": {"quant.weights.range": (0, 1)},  # Of the decoder only.
}
AFTER = {"distilled": "distill.teacher", "continued": "init_from"}
CNN: dict[str, Any] = {
  **{"model.batch_norm": True, "quant.norm": "none"},
  **{"model.dropout": 0.0, "optim.learning_rate": 0.01},
}
CONFIG = "configs/cifar10_cnn.py:S"
CIFAR: dict[str, Any] = {
  **{"data.valid_fraction": 0.1, "data.train_examples": 8_000},
  **{"data.random_crop": 0, "total_epochs": 6},
  **{"model.channels": (8, 16, 32), "model.dense_width": 64},
  **{"eval_every": 125, "checkpoint_every": 10_000, "checkpoint.keep_best": 0},
}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns the nets of the CNN, and the grids of the decoder."""
  known, found = families.families(scale, data), []
  cnn, decoder = known["cnn"], known["decoder"]
  if scale == "cpu":
    source = f"file:{data}/cifar10_subset/cifar10_subset.npz"
    sizes = {**CIFAR, "data.source": source}
    cnn = dataclasses.replace(cnn, config=CONFIG, overrides=sizes)
  key = "total_steps" if scale == "ci" else "total_epochs"
  nets, seeds = [*NETS][:-1], families.SEEDS[scale]
  for net, seed in product(nets, seeds):
    values = {**CNN, **NETS[net]}
    if net == "twice":
      values[key] = 2 * cnn.overrides.get(key, 30)
    start = cnn.case({"net": "float"}, seed, {}).name
    after = {AFTER[net]: start} if net in AFTER else {}
    found.append(cnn.case({"net": net}, seed, values, after))
  for cell, seed in product(outside.decoder_cells(scale), seeds):
    values = {
      "optim.learning_rate": cell["rate"],
      "optim.weight_decay": cell["decay"],
      "optim.schedule": cell["schedule"],
      "optim.ema": cell["ema"] or None,
      **NETS[cell["net"]],
    }
    found.append(decoder.case(cell, seed, values))
  return found


STUDY = studies.Study(__file__, cases, outside.findings)

if __name__ == "__main__":
  program.run(STUDY.main)
