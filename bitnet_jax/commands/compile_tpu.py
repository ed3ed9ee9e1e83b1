r"""Compiles the train step of a config for TPUs, on a machine without TPUs.

bitnet-jax compile --config=bitnet_decoder:2B4T \
  --topology=v5e:4x4 --config.mesh.fsdp=-1 --config.mesh.data=1

Prints the memory, communication and operations of a chip in a step, and whether
the step fits. If it does not, prints the largest buffers and exits with status
1. --search tries other meshes, more remat and smaller batch parts, and prints
the first combination that fits. Needs libtpu (pip install 'bitnet_jax[tpu]'),
but no TPU. Language models need no corpus: only the shapes of a batch matter.
"""

import sys
import time

from absl import flags
from ml_collections import config_flags

from bitnet_jax.analysis.chips import GIB
from bitnet_jax.programs import ahead

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Name or file of a config, with an optional :VARIANT.",
  lock_config=True,
)
_TOPOLOGY = flags.DEFINE_string(
  "topology", "v5e:2x2", "Kind and shape, such as v5e:4x4."
)
_SLICES = flags.DEFINE_integer("slices", 1, "Number of slices.")
_SEARCH = flags.DEFINE_bool(
  "search",
  False,  # noqa: FBT003
  "Whether to search for a setting that fits.",
)
flags.mark_flag_as_required("config")


def describe(report: ahead.Report) -> str:
  """Returns the report as text."""
  mesh = " x ".join(f"{name} {size}" for name, size in report.mesh.items())
  lines = [f"mesh: {mesh}", "memory of a chip, GiB:"]
  parts = {**report.memory, "all together": report.peak}
  if report.available:
    parts["of"] = report.available
  lines += [f"  {name:14} {size / GIB:8.3f}" for name, size in parts.items()]
  lines.append("received by a chip in a step, MiB:")
  for (kind, dtype), size in sorted(report.exchanged.items()):
    lines.append(f"  {kind:20} {dtype:6} {size / 2**20:12.3f}")
  lines.append("operations of a step, all chips:")
  for dtype, flops in sorted(report.flops.items()):
    lines.append(f"  {dtype:10} {flops:.4g}")
  int8, products = report.int8_products
  lines.append(f"products in the program: {products}, of int8: {int8}")
  lines.append(f"tokens or examples of a step: {report.tokens:,}")
  return "\n".join(lines)


def search(config, devices) -> int:
  """Prints the settings that were tried, and the first that fits."""
  for change, report, problem in ahead.search(config, devices):
    said = " ".join(f"--config.{k}={v}" for k, v in change.items())
    print(said or "as it is", flush=True)
    if report is not None:
      print(describe(report))
      print("it fits")
      return 0
    print(f"  {problem.splitlines()[0]}", flush=True)
  print("none of the settings fits; use more chips")
  return 1


def main(argv):
  """Compiles, and prints the report."""
  del argv
  began = time.monotonic()
  config = _CONFIG.value.to_dict()
  try:
    devices = ahead.get_topology(_TOPOLOGY.value, slices=_SLICES.value)
    if _SEARCH.value:
      sys.exit(search(config, devices))
    report = ahead.compile_step(config, devices)
  except ahead.DoesNotFit as error:
    print(error)
    sys.exit(1)
  print(describe(report))
  print(f"compiled in {time.monotonic() - began:.0f} s; it fits")
