"""How many hidden units does X-OR need at 1.58 bits?

python experiments/xor/run.py --scale=cpu --workdir=runs/xor --workers=2
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import itertools
import math

import numpy as np

from bitnet_jax import studies
from bitnet_jax.analysis import capacity, estimates, pairs, proportions
from bitnet_jax.analysis.verdicts import verdict
from bitnet_jax.quantizers.recipe import RECIPES

SIZES = {  # widths, rates, seeds, steps
  "ci": ((2, 8), (0.01,), 2, 20),
  "cpu": ((1, 2, 3, 4, 6, 8, 16, 32), (0.001, 0.01, 0.1), 50, 2000),
  "paper": ((2, 4, 8, 16, 32), (0.001, 0.01, 0.1), 50, 50_000),
}
TERNARY = ("b158", "b158_median")


def cases(scale, data):
  widths, rates, seeds, steps = SIZES[scale]
  grid = itertools.product(widths, rates, studies.PRECISIONS, range(seeds))
  for hidden, rate, precision, seed in grid:
    cell = {"hidden": hidden, "rate": rate, "precision": precision}
    length = {"total_steps": steps, "log_every": steps, "eval_every": steps}
    length |= {"checkpoint_every": steps, "statistics_every": 0}
    length |= {"steps_per_dispatch": min(steps, 100), "model.width": hidden}
    values = {**studies.PRECISIONS[precision], "optim.learning_rate": rate}
    yield studies.Case("configs/xor_mlp.py", cell, seed, {**length, **values})


def measure(config, variables):
  """Returns the fractions of ternary weights of inputs that are not zero."""
  quantizer = RECIPES[config["quant"]["recipe"]].weights
  if quantizer is None:
    return {}
  codes = quantizer.quantize(variables["params"]["layer_0"]["kernel"]).qvalue
  used = np.mean(np.asarray(codes) != 0, axis=1)
  return {"weights/signal": used[:2].mean(), "weights/noise": used[2:].mean()}


def failures(runs):
  """Returns by width and seed whether a run failed."""
  return {
    width: {
      seed: float(not accuracy >= 1)  # NaN has failed, too.
      for seed, accuracy in runs.where(hidden=width).by_seed("test/accuracy").items()
    }
    for width in runs.choices("hidden")
  }


def findings(runs):
  by = {p: runs.where(precision=p) for p in runs.choices("precision")}
  rates = {p: of.best("rate", "valid/accuracy") for p, of in by.items()}
  failed = {p: failures(of.where(rate=rates[p])) for p, of in by.items()}
  ...
