"""Benchmark suite of training on folders of pictures."""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import numpy as np
from PIL import Image

from benchmarks.timing import Case, Run
from benchmarks.workers import Worker
from bitnet_jax.data import decoded_file
from bitnet_jax.data.views import arrays
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import place_batch

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits_cnn.py"
STEPS = 30  # one after the other, so that batches made in advance do not count
DECODED, AGAIN = "decoded once, on disk", "decoded for each batch"
MODES = ("L", "RGB", "RGBA", "P", "LA", "1")
# Trains a few steps on what JSON says, and prints the peak of its memory.
PROGRAM = """
import json, pathlib, re, sys
from benchmarks import folders
folders.updating(json.loads(sys.argv[1]))(1)
status = pathlib.Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) // 1000)
"""


def write(folder: pathlib.Path, count: int, *, is_mixed: bool) -> None:
  """Writes pictures of ten classes, half of them PNG, half JPEG.

  Args:
    folder: created.
    count: number of pictures.
    is_mixed: whether they have sizes from 48 to 160 pixels and all modes, or 64
      x 64 pixels in colours.
  """
  rng = np.random.default_rng(0)
  for i in range(count):
    width, height = rng.integers(48, 161, 2) if is_mixed else (64, 64)
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(coarse)
    picture = picture.resize((width, height), Image.Resampling.BOX)
    mode = MODES[i // 20 % len(MODES)] if is_mixed else "RGB"
    ending = "jpg" if i // 10 % 2 and mode in ("L", "RGB") else "png"
    file = folder / f"class {i % 10}" / f"{i}.{ending}"
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.convert(mode).save(file)


def updating(overrides: Mapping[str, Any]) -> Run:
  """Returns a timer of ``STEPS`` training steps of the digits' network.

  It makes a batch for each step, as the training loop does.
  """
  experiment = build(runner.load_config(str(CONFIG), dict(overrides)))
  data, mesh = experiment.data, experiment.mesh
  with experiment.activate():
    batch = place_batch(data.train_batch(0), mesh)
    state, key = experiment.init(), experiment.train_key()
    jitted: Any = experiment.train_step()
    step = jitted.lower(state, batch, key).compile()
  kept, numbers = [state], itertools.count(1)

  def run(calls: int) -> float:
    start = time.perf_counter()
    metrics = None
    for _ in range(calls * STEPS):
      batch = place_batch(data.train_batch(next(numbers)), mesh)
      kept[0], metrics = step(kept[0], batch, key)
    jax.block_until_ready((kept[0], metrics))
    seconds = time.perf_counter() - start
    data.close()  # so that nothing is read while others are timed
    return seconds / STEPS

  return run


def cases(torch: Worker | None) -> Iterator[Case]:
  """Yields training on a folder against the same pictures elsewhere."""
  del torch
  with tempfile.TemporaryDirectory() as temporary:
    root = pathlib.Path(temporary)
    yield _mixed(root)
    yield _many(root)


def _mixed(root):
  """600 pictures of mixed modes and sizes, against a .npz file of them."""
  write(root / "mixed", 600, is_mixed=True)
  source = f"folder:{root / 'mixed'}"
  (split,) = arrays.load(source, image_size=64).splits.values()
  members: dict[str, Any] = {"x_train": split.inputs, "y_train": split.labels}
  members |= {"x_test": split.inputs[:60], "y_test": split.labels[:60]}
  np.savez(root / "mixed.npz", **members)
  runs = {
    "folder": updating({"data.source": source, "data.image_size": 64}),
    "npz": updating({"data.source": f"file:{root / 'mixed.npz'}"}),
  }
  name = "600 pictures of mixed modes and sizes, as 64 x 64"
  return Case(name, runs, [("folder", "npz")])


def _many(root):
  """20,000 pictures in memory, against reading them for each batch."""
  write(root / "many", 20_000, is_mixed=False)
  runs, peaks = {}, []
  for name, most in (("in memory", 0), (DECODED, 0.5), (AGAIN, 0)):
    overrides = {
      "data.source": f"folder:{root / 'many'}",
      "data.in_memory": name == "in memory",
    }
    if name != AGAIN:
      peaks.append(f"{name} {_peak(overrides)} MB")
    with mock.patch.object(decoded_file, "_MOST", most):
      runs[name] = updating(overrides)
  name = f"20,000 pictures of 64 x 64, 246 MB (peak memory {', '.join(peaks)})"
  return Case(name, runs, [(other, "in memory") for other in (DECODED, AGAIN)])


def _peak(overrides):
  """Returns the peak memory of a process that trains, in MB."""
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, json.dumps(overrides)],
    cwd=pathlib.Path(__file__).parents[1],
    check=True,
    capture_output=True,
    text=True,
  )
  return int(done.stdout.split()[-1])
