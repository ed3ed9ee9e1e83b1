"""Speed of a run: examples per second, utilization, lost time."""

import contextlib
import time
from collections.abc import Iterator, Mapping

import jax

from bitnet_jax.analysis import chips


class Speed:
  """Measures the speed from one logged step to the next.

  Times are of this process, work is of all chips.
  """

  def __init__(
    self,
    *,
    examples: int,
    tokens: int = 0,
    flops: Mapping[str, float] | None = None,
  ):
    """Starts the clock.

    Args:
      examples: of a step.
      tokens: of a step; 0 where examples have none.
      flops: operations of a step by dtype of the factors, see ``flops.count``;
        ``None`` for chips whose peaks are not known.
    """
    self._work = {"examples": examples} | ({"tokens": tokens} if tokens else {})
    self._chip = chips.find(jax.devices()[0].device_kind)
    self._flops = flops
    self.begin(0)

  def begin(self, step: int) -> None:
    """Starts a new measurement after a step."""
    self._lost = {"data": 0.0, "other": 0.0}
    self._began, self._step = time.monotonic(), step

  @contextlib.contextmanager
  def losing(self, what: str) -> Iterator[None]:
    """Counts the time of a block as lost to "data" or "other"."""
    began = time.monotonic()
    try:
      yield
    finally:
      self._lost[what] += time.monotonic() - began

  def report(self, step: int) -> dict[str, float]:
    """Returns the speed since the last report, and starts a new measurement.

    ``examples_per_second_chip`` and the like; ``lost_to_data`` and
    ``lost_to_other`` (evaluation, checkpoints, statistics), fractions of the
    time; ``utilization``, the least time of the products on these chips as a
    fraction of the time that is not lost to other work. ``utilization`` is the
    sum of that of int8 products, relative to the int8 peak, and that of the
    others, relative to the bfloat16 peak.
    """
    now, steps = time.monotonic(), step - self._step
    elapsed = max(now - self._began, 1e-9)
    count = jax.device_count()
    found = {
      f"{name}_per_second_chip": steps * amount / elapsed / count
      for name, amount in self._work.items()
    }
    for what, seconds in self._lost.items():
      found[f"lost_to_{what}"] = min(seconds / elapsed, 1.0)
    if self._flops is not None and self._chip is not None:
      busy = max(elapsed - self._lost["other"], 1e-9) / max(steps, 1)
      int8 = {"int8": self._flops.get("int8", 0.0)}
      rest = {n: f for n, f in self._flops.items() if n != "int8"}
      for name, part in (("int8", int8), ("float", rest)):
        used = chips.utilization(part, busy, count, self._chip)
        found[f"utilization_{name}"] = used
      found["utilization"] = (
        found["utilization_int8"] + found["utilization_float"]
      )
    self.begin(step)
    return {f"speed/{name}": value for name, value in found.items()}
