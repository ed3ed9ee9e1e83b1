"""Fractions of ternary weights that are zero: of Gaussian weights, by depth."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.analysis import estimates, pairs, verdicts
from bitnet_jax.quantizers.recipe import RECIPES
from bitnet_jax.studies import summaries
from bitnet_jax.studies.findings import Axis, Figure
from bitnet_jax.studies.records import ZEROS
from bitnet_jax.studies.runs import Runs

_SHAPE = (512, 512)


@functools.cache
def gaussian(recipe: str, seeds: int) -> tuple[float, ...]:
  """Returns the fraction of zeros of Gaussian matrices, one for each seed.

  Args:
    recipe: name of a recipe with ternary weights.
    seeds: number of matrices.
  """
  quantizer = RECIPES[recipe].weights
  assert quantizer is not None
  codes = jax.jit(lambda weights: quantizer.quantize(weights).qvalue)
  found = []
  for seed in range(seeds):
    weights = np.random.default_rng(seed).normal(size=_SHAPE)
    zeros = np.asarray(codes(jnp.float32(weights))) == 0
    found.append(float(np.mean(zeros)))
  return tuple(found)


def by_depth(runs: Runs) -> dict[int, dict[int, float]]:
  """Returns the fraction of zeros by number of the block and by seed.

  The number is the first one in the path of a layer; layers without one are
  left out. Layers are weighted by their numbers of weights.
  """
  found: dict[int, dict[int, float]] = {}
  for run in runs:
    sums: dict[int, list[float]] = {}
    for path, layer in run.layers.items():
      if number := re.search(r"\d+", path):
        zeros, size = sums.setdefault(int(number[0]), [0.0, 0.0])
        size += layer["size"]
        zeros += layer["zeros"] * layer["size"]
        sums[int(number[0])] = [zeros, size]
    for block, (zeros, size) in sorted(sums.items()):
      found.setdefault(block, {})[run.seed] = zeros / size
  return found


def judge(runs: Runs, **about: Any) -> list[verdicts.Verdict]:
  """Returns verdicts on the fraction of zeros of Gaussian and trained weights.

  Args:
    runs: of cells with the keys "family", "precision" and "trained".
    **about: further arguments of ``verdicts.verdict``.
  """
  about = {**about, "unit": "of the weights"}
  rise, trained = {}, {}
  for (family,), of in runs.where(precision="b158").group("family").items():
    ends = (of.where(trained=at).by_seed(ZEROS) for at in (True, False))
    pair = pairs.pair(*ends, diverged="exclude")
    rise[f"family={family}"] = pair
    trained[f"family={family}"] = estimates.mean(pair.first)
  mean, median = (
    estimates.mean(gaussian(name, 10)) for name in ("b158", "b158_median")
  )
  ranges = (
    ("Gaussian weights have 31 % zeros with the mean", mean, (0.305, 0.315)),
    (
      "Gaussian weights have 26 % zeros with the median",
      median,
      (0.259, 0.269),
    ),
    ("trained weights have about 40 % zeros (mean)", trained, (0.35, 0.45)),
    (
      "trained weights have a third each of -1, 0 and 1 (mean)",
      trained,
      (0.283, 0.383),
    ),
  )
  found = [
    verdicts.verdict(
      "in range", cells, bounds=bounds, combine="most", statement=said, **about
    )
    for said, cells, bounds in ranges
  ]
  raised = verdicts.verdict(
    "better",
    rise,
    better="higher",
    margin=0.01,
    statement="training raises the fraction of zeros (mean)",
    **about,
  )
  return [*found, raised]


def figures(runs: Runs) -> list[Figure]:
  """Returns the fraction of zeros over training and by depth, with the mean."""
  steps, depth = [], []
  found = runs.where(precision="b158", trained=True).group("family")
  for (family,), of in found.items():
    steps.append(summaries.series(family, summaries.over_steps(of, ZEROS)))
    depth.append(summaries.series(family, by_depth(of)))
  y = Axis("Fraction of zeros")
  return [
    Figure("steps", "Zeros in training", "lines", Axis("Step"), y, steps),
    Figure("depth", "Zeros by block", "lines", Axis("Block"), y, depth),
  ]
