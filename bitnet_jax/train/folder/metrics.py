"""Metrics of a run: JSON lines, TensorBoard events, the progress bar."""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from bitnet_jax.files import (
  PathLike,
  local_path,
  naming,
  parse_json,
  read_bytes,
  write_atomically,
)
from bitnet_jax.train import console
from bitnet_jax.train.devices.speed import Speed
from bitnet_jax.train.folder import bucket
from bitnet_jax.train.folder.events import EventFile
from bitnet_jax.train.folder.lock import EVENTS
from bitnet_jax.train.folder.lock import METRICS_FILE as METRICS_FILE

LARGEST_METRICS = 2**30  # bytes of that file
_LARGEST = 1e300  # Far above any metric in float32, and no NaN is below.


class NonFiniteMetricError(FloatingPointError):
  """A metric became NaN or infinite.

  Attributes:
    step: the first step with such a metric.
  """

  def __init__(self, message: str, step: int = 0):
    super().__init__(message)
    self.step = step


def check_finite(step: int, metrics: Mapping[str, float]) -> None:
  """Raises a ``NonFiniteMetricError`` that names step and metrics."""
  bad = [f"{n} is {v}" for n, v in metrics.items() if not math.isfinite(v)]
  if bad:
    raise NonFiniteMetricError(
      f"{', '.join(bad)} at step {step}; the run stops here, and the"
      " checkpoints before this step are kept. A lower optim.learning_rate or"
      " optim.clip_norm may help",
      step,
    )


class SilentWriter:
  """Writes nothing: for all processes but the primary one.

  Attributes:
    start_time: seconds that earlier starts of the run took.
  """

  def __init__(self):
    self.start_time, self._began = 0.0, time.monotonic()

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds metrics of a step, which never goes back."""

  def flush(self) -> None:
    """Makes everything that was written durable."""

  def seconds(self) -> float:
    """Returns the seconds since the run began, earlier starts included."""
    return self.start_time + time.monotonic() - self._began

  def close(self) -> None:
    """Flushes, and closes the files."""


class MetricsWriter(SilentWriter):
  """Writes one JSON object a logged step, and TensorBoard event files.

  All metrics of a step go to one line, which is complete once a later step is
  written or ``flush`` is called.
  """

  def __init__(self, workdir: pathlib.Path, *, restored_step: int):
    """Opens the files, and drops what lies beyond ``restored_step``."""
    super().__init__()
    self._folder, path = workdir, workdir / METRICS_FILE
    kept = [r for r in read_metrics(workdir) if r["step"] <= restored_step]
    write_atomically(path, "".join(_line(r) for r in kept))
    self.start_time = kept[-1]["time"] if kept else 0.0
    self._file = path.open("a", buffering=1, encoding="utf-8")
    self._events = EventFile(
      workdir / EVENTS, purge_step=restored_step + 1 if restored_step else None
    )
    self._step, self._time = restored_step, self.start_time
    self._pending: dict[str, float] = {}

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Adds metrics of a step, which never goes back."""
    if step != self._step:
      self._complete_line()
    if not self._pending:
      self._step, self._time = step, self.seconds()
    self._pending.update(metrics)
    with naming(self._folder / EVENTS):
      for name, value in metrics.items():
        self._events.add_scalar(name, value, step)

  def _complete_line(self) -> None:
    if self._pending:
      record = {"step": self._step, "time": round(self._time, 3)}
      with naming(self._folder / METRICS_FILE):
        record |= dict(sorted(self._pending.items()))
        self._file.write(_line(record))
      console.event("metrics", **record)
      self._pending = {}

  def flush(self) -> None:
    """Completes the line of the current step, and makes all lines durable."""
    self._complete_line()
    with naming(self._folder / METRICS_FILE):
      self._file.flush()
      os.fsync(self._file.fileno())
    with naming(self._folder / EVENTS):
      self._events.flush()
    bucket.send(self._folder)

  def close(self) -> None:
    """Flushes and closes the files, even if one of them cannot be written."""
    with contextlib.ExitStack() as stack:
      stack.callback(self._events.close)
      stack.callback(self._file.close)
      self.flush()


def read_metrics(workdir: PathLike) -> list[dict[str, Any]]:
  """Returns the lines of ``metrics.jsonl``, without a last one that is cut off.

  Raises:
    ValueError: for a line that is not one of ours, naming it, or a file of more
      than ``LARGEST_METRICS`` bytes.
  """
  workdir = local_path(workdir)
  path = workdir / METRICS_FILE
  if not path.exists():
    return []
  data = read_bytes(path, most=LARGEST_METRICS)
  lines = data.decode("utf-8", errors="replace").split("\n")
  return [
    _parse(line, f"{path}, line {number}")
    for number, line in enumerate(lines[:-1], start=1)
  ]


def _parse(line: str, where: str) -> dict[str, Any]:
  """Returns the record in a line; a ValueError names a line without one."""
  try:
    record = parse_json(line)
  except ValueError as error:
    raise ValueError(f"{where}, has no step and time: {error}") from error
  if (
    not isinstance(record, dict)
    or type(record.get("step")) is not int
    or "time" not in record
    or not all(map(_is_metric, record.values()))
  ):
    raise ValueError(
      f"{where}, has no step and time, or a value that is no number:"
      f" {line:.100}"
    )
  return record


def _is_metric(value: Any) -> bool:
  return type(value) in (int, float) and abs(value) < _LARGEST


def _line(record: Mapping[str, Any]) -> str:
  return json.dumps(record) + "\n"


class TrainMetrics:
  """Hook that fetches, checks and writes the metrics of every step.

  It fetches them one call late, to keep the device busy. Other hooks write
  through it, so that nothing is written of a step with metrics that are not
  finite.
  """

  def __init__(
    self,
    writer: SilentWriter,
    *,
    log_every: int,
    batch_size: int,
    step: int,
    total_steps: int,
    speed: Speed | None = None,
    on_step: Callable[[int], None] | None = None,
  ):
    self._on_step = on_step
    self._writer, self._log_every, self._speed = writer, log_every, speed
    if speed is not None:
      speed.begin(step)
    self._batch_size = batch_size
    self._late: tuple[range, Any] | None = None
    self._step = step
    self._bar = tqdm.tqdm(
      desc="train",
      initial=step,
      total=total_steps,
      unit="step",
      mininterval=0.5 if sys.stderr.isatty() else 10,
      disable=not isinstance(writer, MetricsWriter) or not console.shows_text(),
    )

  def due(self, step: int) -> bool:
    """See ``hooks.Hook``: never, since it needs no state."""
    del step
    return False

  def __call__(self, step: int, state: Any, metrics: Any) -> None:
    """Handles the metrics of the last call, and keeps these for the next one.

    They are scalars, or arrays with a leading axis of the steps since then.
    """
    del state
    self.flush()
    self._late = (range(self._step + 1, step + 1), metrics)
    self._step = step

  def flush(self) -> None:
    """Handles the metrics of the last call.

    Raises:
      NonFiniteMetricError: naming step and metric.
    """
    if self._late is None:
      return
    steps, metrics = self._late
    self._late = None
    fetched = {n: np.ravel(m) for n, m in jax.device_get(metrics).items()}
    for i, step in enumerate(steps):
      values = {f"train/{n}": float(v[i]) for n, v in fetched.items()}
      self._handle(step, values)

  def _handle(self, step: int, values: Mapping[str, float]) -> None:
    check_finite(step, values)
    if step % self._log_every == 0:
      self._writer.write(step, values)
      if self._speed is not None:
        self._writer.write(step, self._speed.report(step))
    if not self._bar.disable:
      self._show(values)
    if self._on_step is not None:
      self._on_step(step)

  def _show(self, values: Mapping[str, float]) -> None:
    """Advances the progress bar."""
    shown = {
      name: f"{values[f'train/{name}']:.4g}"
      for name in ("loss", "accuracy")
      if f"train/{name}" in values
    }
    self._bar.update()
    done = (self._bar.n - self._bar.initial) * self._batch_size
    shown["examples/s"] = f"{done / (time.time() - self._bar.start_t):.0f}"
    self._bar.set_postfix(shown, refresh=False)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes metrics of another hook, once those of the step are checked.

    Raises:
      NonFiniteMetricError: naming step and metrics.
    """
    self.flush()
    check_finite(step, metrics)
    self._writer.write(step, metrics)

  def complete(self) -> None:
    """Makes everything up to the last step durable."""
    self.flush()
    self._writer.flush()

  def close(self) -> None:
    """Closes the progress bar."""
    self._bar.close()
