"""Benchmarks layers and training steps against their baselines.

python experiments/benchmark.py --suite=dense
python experiments/benchmark.py --suite=step --torch_python=TORCH/bin/python

dense, conv: layers against ``nn.Dense`` and ``nn.Conv`` in float32 and
  bfloat16, and against quantization simulated in floats; a step is one program
  that returns y, dx and dw for a given cotangent.
compute: products of codes in int8 and in float, on which compute="auto" is
  based.
median: the exact median against the mean, and against sorting.
step: whole training steps with AdamW. --case=MNIST --nokeep_memory, and
  --case=stack --case=decoder, have the memory settings of train.py.
mesh: training steps of a decoder on meshes of all devices; XLA_FLAGS=
  --xla_force_host_platform_device_count=8 simulates eight on a CPU.
packed: products with packed weights, and generation by a decoder, frozen or
  not.
rivals: writing, and reading a long prompt, against llama.cpp with
  --llama_python.
memory: residuals, the arrays stored for the backward pass.
start: whole programs of two training steps.
sweep: a training step of a member, with several members in one program.
folders: training on folders of pictures, against the same pictures in a .npz
  file, and in memory against read for each batch.
tpu: the programs that XLA compiles for v5e and v6e from a dense step; needs
  libtpu.

With --torch_python, PyTorch and the package bitlinear of that Python are timed
too, in their own process. All variants are timed in turn, so that noise affects
them equally. Prints medians with quartiles, of the times and of the ratios of
times within a round. --output appends a JSON line for each case, --plot draws
the ratios. --table prints the ratios in such files side by side as Markdown,
without timing anything:

python experiments/benchmark.py --suite=dense --table=first.jsonl,second.jsonl
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import dataclasses
import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import flags
from benchmarks import (
  folders,
  layers,
  memory,
  meshes,
  rivals,
  serving,
  sweeps,
  tpu,
  training,
)
from benchmarks.tables import table
from benchmarks.timing import Case, Timings, measure
from benchmarks.workers import Worker

from bitnet_jax.ops.cpu import library
from bitnet_jax.train.devices.allocation import keep_memory
from bitnet_jax.train.folder import records

SUITES: dict[str, Callable[[Worker | None], Iterator[Case]]] = {
  "dense": layers.dense,
  "conv": layers.conv,
  "compute": layers.compute,
  "median": layers.median,
  "step": training.step,
  "mesh": meshes.mesh,
  "packed": serving.packed,
  "rivals": rivals.rivals,
  "start": training.start,
  "folders": folders.cases,
  "sweep": sweeps.sweep,
}

# Suites that inspect programs instead of timing them.
READINGS: dict[str, Callable[[], Iterator[tuple[str, dict[str, Any]]]]] = {
  "memory": memory.rows,
  "tpu": tpu.rows,
}

_SUITE = flags.DEFINE_enum(
  "suite", "dense", [*SUITES, *READINGS], "What to time."
)
_CASE = flags.DEFINE_multi_string(
  "case", [], "Only cases whose name contains this."
)
_REPEATS = flags.DEFINE_integer("repeats", 21, "Timed rounds.", lower_bound=3)
_OUTPUT = flags.DEFINE_string("output", None, "File to append JSON lines to.")
_PLOT = flags.DEFINE_string("plot", None, "File to draw the ratios into.")
_TABLE = flags.DEFINE_list(
  "table", None, "Print these record files as a table."
)
_TORCH = flags.DEFINE_string(
  "torch_python", None, "Python interpreter with PyTorch."
)
_LLAMA = flags.DEFINE_string(
  "llama_python", None, "Python interpreter with llama-cpp-python."
)
_KEEP = flags.DEFINE_bool(
  "keep_memory",
  default=True,
  help="Retain freed memory on CPU, as train.py does for transformers.",
)


def keeps_memory() -> bool:
  """Configures malloc; returns whether freed memory is retained.

  Must be called before JAX starts.
  """
  return _KEEP.value and keep_memory()


def show(timings: Timings) -> None:
  """Prints the table of a case."""
  for name, t in timings.milliseconds.items():
    print(f"  {name:36} {t.median:10.3f} ms  ({t.q1:.3f} to {t.q3:.3f})")
  for name, r in timings.ratios.items():
    print(f"  {name:36} {r.median:10.3f}     ({r.q1:.3f} to {r.q3:.3f})")


def write(case: str, results: dict[str, Any], others: dict[str, str]) -> None:
  """Appends a line to the output file."""
  if _OUTPUT.value is None:
    return
  record = {
    "suite": _SUITE.value,
    "case": case,
    **results,
    "repeats": _REPEATS.value,
    "device": records.device(),
    "cores": os.cpu_count(),
    "memory_kept": keeps_memory(),
    "kernels": library.is_there(),
    "versions": records.versions() | others,
    "commit": records.commit(),
  }
  with open(_OUTPUT.value, "a", encoding="utf-8") as file:
    file.write(json.dumps(record) + "\n")


def plot(ratios: dict[str, Timings], path: pathlib.Path) -> None:
  """Draws the ratios of all cases with their quartiles."""
  import matplotlib

  matplotlib.use("agg")
  from matplotlib import pyplot

  labels, medians, errors = [], [], []
  for case, timings in ratios.items():
    for name, r in timings.ratios.items():
      labels.append(f"{case}: {name}")
      medians.append(r.median)
      errors.append((r.median - r.q1, r.q3 - r.median))
  figure, axes = pyplot.subplots(
    figsize=(9, 1 + 0.25 * len(labels)), layout="constrained"
  )
  axes.barh(labels, medians, xerr=list(zip(*errors, strict=True)))
  axes.axvline(1, color="black", linewidth=1)
  axes.set(xscale="log", xlabel="ratio of times", title=_SUITE.value)
  axes.invert_yaxis()
  figure.savefig(path)


def read() -> None:
  """Prints the results of a suite that inspects programs."""
  for case, found in READINGS[_SUITE.value]():
    print(case, flush=True)
    for name, value in found.items():
      shown = f"{value:.3f}" if isinstance(value, float) else value
      shown = f"{value:,}" if isinstance(value, int) else shown
      print(f"  {name:36} {shown:>20}")
    write(case, {"read": found}, {})


def main(argv):
  """Runs one suite and prints its table."""
  del argv
  if _TABLE.value:
    print(table(_SUITE.value, [pathlib.Path(f) for f in _TABLE.value]))
    return
  keeps_memory()
  print(
    f"jax {jax.__version__}, {records.device()}, {platform.machine()},"
    f" {os.cpu_count()} cores, kernels"
    f" {'compiled' if library.is_there() else 'not compiled'}"
  )
  if _SUITE.value in READINGS:
    read()
    return
  worker, others = None, {}
  package, python = "torch", _TORCH.value
  if _SUITE.value == "rivals":
    package, python = "llama_cpp", _LLAMA.value
  if python:
    worker = Worker(
      python,
      f"{package.partition('_')[0]}_worker.py",
      threads=os.cpu_count() or 1,
      keeps_memory=keeps_memory(),
    )
    others = {package: worker.version}
    print(f"{package} {worker.version}")
  all_timings, names = {}, []
  for case in SUITES[_SUITE.value](worker):
    names.append(case.name)
    if _CASE.value and not any(part in case.name for part in _CASE.value):
      continue
    print(case.name, flush=True)
    timings = all_timings[case.name] = measure(case, _REPEATS.value)
    show(timings)
    write(case.name, dataclasses.asdict(timings), others)
  if worker:
    worker.close()
  if not all_timings:
    sys.exit(
      f"error: --case={','.join(_CASE.value)} matches no case of"
      f" {_SUITE.value}; the cases are: {'; '.join(names)}"
    )
  if _PLOT.value:
    plot(all_timings, pathlib.Path(_PLOT.value))


if __name__ == "__main__":
  program.run(main)
