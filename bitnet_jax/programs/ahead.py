"""Compiles the train step of a config ahead of time, for absent TPUs."""

import collections
import dataclasses
import itertools
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from bitnet_jax import backend
from bitnet_jax.analysis import chips, flops, programs
from bitnet_jax.train import summary
from bitnet_jax.train.build import build
from bitnet_jax.train.experiment import Experiment

# libtpu needs these on a machine without a TPU.
_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# From most memory to most recomputation.
REMATS = ["none", "products", "full"]
# Only shapes matter, so embedded texts replace a corpus.
TEXT_TASKS = ("causal_lm", "masked_lm", "span_corruption")
# A line of the compiler's report: sum, size, place, number of values, shapes.
_BUFFER = re.compile(r"^.*?%\);\s*(\S+);\s*\d+;\s*\d+; (.*)$", re.MULTILINE)


class Refused(ValueError):
  """JAX cannot make the mesh, or the compiler cannot compile the program."""


class DoesNotFit(Refused):
  """A program needs more memory than a chip has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """A compiled step; memory and communication are per chip.

  Attributes:
    mesh: sizes by axis.
    memory: bytes by part: parameters, optimizer, batch, temporaries.
    available: bytes of memory of a chip; ``None`` if unknown.
    exchanged: bytes that a chip receives in a step, by kind and dtype.
    flops: operations of a step over all chips, by dtype of the factors.
    int8_products: number of int8 products, and of all products.
    tokens: tokens, or examples, in a step.
  """

  mesh: dict[str, int]
  memory: dict[str, int]
  available: int | None
  exchanged: dict[tuple[str, str], int]
  flops: dict[str, float]
  int8_products: tuple[int, int]
  tokens: int

  @property
  def peak(self) -> int:
    """The bytes of all parts."""
    return sum(self.memory.values())


def get_topology(name: str, *, slices: int = 1) -> Any:
  """Returns the devices of a TPU slice such as "v5e:4x4".

  Raises:
    ValueError: if the compiler does not know it, or is not installed.
  """
  for key, value in _ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  more: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
  if name.startswith("v4"):
    # Two cores of a chip appear as one device, as they do on TPUs.
    more["chip_config_name"] = "megacore"
  try:
    return topologies.get_topology_desc(name, platform="tpu", **more).devices
  except Exception as error:  # Whatever the compiler raises.
    raise ValueError(
      f"topology {name!r} cannot be had: {error}. It is a kind and its shape,"
      " such as v5e:4x4, v6e:8x8 or v5p:2x2x2, and needs libtpu: pip install"
      " 'bitnet_jax[tpu]'"
    ) from error


def without_corpus(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config of a language model that needs no files."""
  if config["task"]["name"] not in TEXT_TASKS:
    return dict(config)
  data = dict(config["data"])
  data |= {"source": "embedded:pydoc", "tokenizer": "bytes", "lowercase": None}
  data |= {"split_names": (), "data_dir": None, "documents": None}
  data |= {"valid_fraction": 0.1, "test_fraction": 0.0}
  if data["vocab_size"] is None:
    raise ValueError(
      "data.vocab_size is None; give the size of the vocabulary, since no file"
      " is read"
    )
  # The length of an epoch is not known either.
  steps = config["total_steps"] or 1_000_000
  return {**config, "data": data, "total_steps": steps, "total_epochs": None}


def _check_alone(config: Mapping[str, Any]) -> None:
  teacher = config["distill"]["teacher"]
  if teacher is not None:
    raise ValueError(
      f"distill.teacher is {teacher!r}; a step with a teacher is not compiled"
      " ahead of time, set it to None"
    )


def compile_step(config: Mapping[str, Any], devices: Any) -> Report:
  """Compiles the train step of a config.

  Args:
    config: nested dict; text may come from anywhere, see ``without_corpus``.
    devices: devices of a topology.

  Raises:
    ValueError: for a mistake in the config.
    Refused: with what JAX or the compiler says.
    DoesNotFit: naming the largest buffers.
  """
  _check_alone(config)
  with backend.compiling_for("tpu"):
    try:
      experiment = build(without_corpus(config), devices=devices)
    except (AssertionError, NotImplementedError) as error:
      raise Refused(f"no mesh of these chips: {error}") from error
    with experiment.activate():
      step: Any = experiment.train_step()
      arguments = experiment.step_arguments()
      counted = flops.count(step, *arguments)
      lowered = step.lower(*arguments)
      with tempfile.TemporaryDirectory() as folder:
        try:
          compiled = lowered.compile({"xla_dump_to": folder})
        except jax.errors.JaxRuntimeError as error:
          if "RESOURCE_EXHAUSTED" not in str(error):
            raise Refused(_refusal(str(error), experiment.mesh)) from error
          largest = _largest_buffers(pathlib.Path(folder))
          raise DoesNotFit(_explain(str(error), largest)) from error
  return _report(experiment, compiled, arguments, counted)


def _report(experiment: Experiment, compiled, arguments, counted) -> Report:
  state, batch, *_ = arguments
  device = experiment.mesh.devices.flat[0]
  chip = chips.find(device.device_kind)
  stats = compiled.memory_analysis()
  memory = {
    "parameters": summary.bytes_of(state.params),
    "optimizer": summary.bytes_of(state.opt_state)
    + summary.bytes_of(state.variables),
    "batch": summary.bytes_of(batch),
    "temporaries": stats.temp_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes,
  }
  hlo = compiled.as_text()
  exchanged: collections.Counter[tuple[str, str]] = collections.Counter()
  for one in programs.collectives(hlo):
    for dtype, size in one.bytes_by_dtype().items():
      exchanged[one.kind, dtype] += size
  products = programs.products(hlo)
  return Report(
    mesh=dict(experiment.mesh.shape),
    memory=memory,
    available=chip.memory if chip else None,
    exchanged=dict(exchanged),
    flops=counted,
    int8_products=(
      sum(p.startswith("s8 x s8") for p in products),
      len(products),
    ),
    tokens=experiment.settings.data.batch_size * max(experiment.data.tokens, 1),
  )


def _largest_buffers(folder: pathlib.Path, count: int = 8) -> list[str]:
  """Returns lines of the compiler's own report of memory, largest first."""
  for path in folder.glob("*memory-usage-report.txt"):
    found = _BUFFER.findall(path.read_text(errors="replace"))
    return [f"  {size:>12}  {shapes}" for size, shapes in found[:count]]
  return []


def _refusal(message: str, mesh: jax.sharding.Mesh) -> str:
  """Returns the compiler's message, shortened."""
  said = " ".join(message.split())[:500]
  sizes = dict(mesh.shape)
  return f"the compiler refuses the step for the mesh {sizes}: {said}"


def _explain(message: str, largest: Sequence[str]) -> str:
  """Returns the useful part of the compiler's message."""
  sizes = re.search(r"\((\S+)\) exceeds available HBM \((\S+)\)", message)
  if sizes is None:
    return "\n".join([f"the step does not fit: {message[:1000]}", *largest])
  first = f"the step needs {sizes[1]} of memory, but a chip has {sizes[2]}"
  return "\n".join([f"{first}; the largest buffers are", *largest])


def search(
  config: Mapping[str, Any], devices: Any
) -> Iterator[tuple[dict[str, Any], Report | None, str]]:
  """Compiles variations of a config until one fits.

  The config itself comes first. Then the parameters are sharded over all chips;
  then remat increases; then the batch is split into parts, which does not
  change the result.

  Args:
    config: nested dict.
    devices: devices of a topology.

  Yields:
    Values by dotted key; the report, or ``None`` and why there is none.

  Raises:
    ValueError: for a mistake in the config itself.
  """
  for change in ({}, *_candidates(config, len(devices))):
    changed = {
      key: dict(group) if isinstance(group, dict) else group
      for key, group in config.items()
    }
    for key, value in change.items():
      group, _, name = key.partition(".")
      changed[group][name] = value
    try:
      report = compile_step(changed, devices)
    except ValueError as error:
      if not change and not isinstance(error, Refused):
        raise  # A mistake, which no change of these mends.
      yield change, None, str(error)
    else:
      yield change, report, ""
      return


def _candidates(config, count):
  """Yields variations that differ from the config."""
  batch, sizes = config["data"]["batch_size"], dict(config["mesh"])
  taken = math.prod(size for size in sizes.values() if size != -1)
  as_it_is = {
    f"mesh.{axis}": count // max(taken, 1) if size == -1 else size
    for axis, size in sizes.items()
  }
  as_it_is["optim.accumulate_steps"] = config["optim"]["accumulate_steps"]
  if "remat" in config["model"]:
    as_it_is["model.remat"] = config["model"]["remat"]
  remats = [None]
  if "remat" in config["model"]:
    remats = REMATS[REMATS.index(config["model"]["remat"]) :]
  for parts in (1, 2, 4, 8, 16, 32, 64):
    # What is tried first is what computes least twice.
    for remat, tensor in itertools.product(remats, (1, 4)):
      fsdp = count // tensor
      if count % tensor or batch % (fsdp * parts):
        continue
      change = {"mesh.data": 1, "mesh.fsdp": fsdp, "mesh.tensor": tensor}
      change["optim.accumulate_steps"] = parts
      change |= {"model.remat": remat} if remat else {}
      if change != as_it_is:
        yield change
