"""Ternary weights of signal and of noise inputs that are not zero."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from bitnet_jax.analysis import estimates, pairs, verdicts
from bitnet_jax.quantizers.recipe import RECIPES
from bitnet_jax.studies import summaries
from bitnet_jax.studies.findings import Axis, Figure
from bitnet_jax.studies.runs import Runs

_PARTS = ("signal", "noise")
# By precision and part: the fraction by width and seed.
Used = dict[tuple[str, str], dict[int, dict[int, float]]]


def measure(
  config: Mapping[str, Any], variables: Any, *, signals: int
) -> dict[str, float]:
  """Returns the fractions of the first layer's weights that are not zero.

  Args:
    config: of a run of an MLP.
    variables: of its model.
    signals: number of inputs that matter, which come first; the others are
      noise.

  Returns:
    "used/signal" and "used/noise": the L1 norm of the codes of these inputs
    divided by their number. Nothing for weights in float.
  """
  codes = _codes(config["quant"]["recipe"])
  if codes is None:
    return {}
  kernel = variables["params"]["layer_0"]["kernel"]
  used = np.mean(np.asarray(codes(kernel)) != 0, axis=1)
  parts = zip(_PARTS, (used[:signals], used[signals:]), strict=True)
  return {f"used/{part}": float(values.mean()) for part, values in parts}


@functools.cache
def _codes(recipe: str) -> Callable[[Any], jax.Array] | None:
  """Returns a compiled function from a kernel to its codes, if any."""
  quantizer = RECIPES[recipe].weights
  if quantizer is None:
    return None
  return jax.jit(lambda kernel: quantizer.quantize(kernel).qvalue)


def used(runs: Runs, key: str) -> Used:
  """Returns what ``measure`` found, by the value of a key of the cells."""
  return {
    (precision, part): found.curve(key, f"used/{part}")
    for (precision,), found in runs.group("precision").items()
    for part in _PARTS
  }


def judge(
  found: Used, mean: str, median: str, **about: Any
) -> list[verdicts.Verdict]:
  """Returns whether one precision ignores noise inputs, and another does not.

  Args:
    found: see ``used``.
    mean: the precision that is said to set them to zero, in all cells, to 10 %.
    median: the one that is said to have 5 points more of them.
    **about: further arguments of ``verdicts.verdict``.
  """
  cells = {
    f"hidden={value}": pairs.pair(
      more, found[mean, "noise"][value], diverged="exclude"
    )
    for value, more in found[median, "noise"].items()
  }
  few = {name: estimates.mean(pair.second) for name, pair in cells.items()}
  about = {**about, "unit": "of the weights"}
  return [
    verdicts.verdict(
      "in range",
      few,
      bounds=(-math.inf, 0.1),
      combine="all",
      statement=f"{mean}: at most 10 % of the weights of noise inputs are not"
      " zero",
      **about,
    ),
    verdicts.verdict(
      "better",
      cells,
      better="higher",
      margin=0.05,
      statement=f"{median}: more weights of noise inputs are not zero than with"
      f" {mean}",
      **about,
    ),
  ]


def figure(found: Used, title: str) -> Figure:
  """Returns the fractions over the widths."""
  lines = [summaries.series("/".join(k), cells) for k, cells in found.items()]
  x, y = Axis("hidden", log=True), Axis("Weights that are not zero")
  return Figure("used", title, "lines", x, y, lines)
