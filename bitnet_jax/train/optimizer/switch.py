"""Spike and recovery of the loss after a late start of quantization.

Continual quantization-aware pre-training (arXiv 2502.11895) starts it late: the
loss spikes, and recovers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

LOSS = "train/loss"
# Logged losses that are averaged at most, and the fraction of those before the
# switch: earlier ones belong to the descent of the first steps.
WINDOW, NEWEST = 10, 0.25


def measure_switch(
  metrics: Sequence[Mapping[str, Any]], start: int
) -> dict[str, float]:
  """Returns how the training loss changed at the start of quantization.

  All are computed from logged losses. "before" is the average of the last
  ``WINDOW`` before the switch, or of the newest quarter of few. "spike" is how
  far the largest later loss lies above it. "recovery_steps" is the number of
  steps until the average is back at it, if it ever is.

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
  spike = max(float(losses.max()) - level, 0.0)
  found = {"switch/before": level, "switch/spike": spike}
  width = min(WINDOW, len(before), len(losses))
  averages = np.convolve(losses, np.full(width, 1 / width), mode="valid")
  (back,) = np.nonzero(averages <= level)
  if back.size:
    found["switch/recovery_steps"] = float(steps[back[0] + width - 1] - start)
  return found
