"""What a switch from full precision to ternary weights costs, and how long.

Continual quantization-aware pre-training (2502.11895) switches late: the loss
spikes, and comes back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

LOSS = "train/loss"
# Logged losses that are averaged, lest a single batch tell what is normal; and
# the share of those before the switch that are at most, lest the descent of the
# first steps do.
WINDOW, NEWEST = 10, 0.25


def measure_switch(
  metrics: Sequence[Mapping[str, Any]], start: int
) -> dict[str, float]:
  """Returns how the training loss took the switch.

  All in terms of logged losses, ``WINDOW`` of which are averaged: "before", the
  last that lie before the switch, but of few of them the newest quarter;
  "spike", by how much any loss after it is higher than that at most; and
  "recovery_steps", after how many steps the average is back at it, if it is.

  Args:
    metrics: lines of ``metrics.jsonl``.
    start: the step before which quantization began.

  Returns:
    The numbers as "switch/NAME"; nothing without losses on both sides.
  """
  logged = [(m["step"], m[LOSS]) for m in metrics if LOSS in m]
  before = [loss for step, loss in logged if step <= start]
  after = [(step, loss) for step, loss in logged if step > start]
  if not before or not after:
    return {}
  newest = max(min(WINDOW, int(NEWEST * len(before))), 1)
  if len(before) < WINDOW:
    logging.warning(
      "%d training losses were logged before quantization began at step %d;"
      " switch/spike and switch/recovery_steps compare with the last %d alone"
      " (a lower log_every gives more)",
      len(before),
      start,
      newest,
    )
  level = float(np.mean(before[-newest:]))
  steps, losses = map(np.asarray, zip(*after, strict=True))
  found = {
    "switch/before": level,
    "switch/spike": max(float(losses.max()) - level, 0.0),
  }
  width = min(WINDOW, len(before), len(losses))
  averages = np.convolve(losses, np.full(width, 1 / width), mode="valid")
  (back,) = np.nonzero(averages <= level)
  if back.size:
    found["switch/recovery_steps"] = float(steps[back[0] + width - 1] - start)
  return found
