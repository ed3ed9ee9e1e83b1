"""Trains the network of a config; starting again resumes a stopped run.

bitnet-jax train --config=digits_mlp --workdir=runs/digits

Every config key is a flag: --config.quant.recipe=b158_median.

On several hosts, start it on each host with --multihost and a workdir that all
hosts share. JAX detects Cloud TPU, SLURM and GKE; other clusters also need
--coordinator=HOST:PORT --num_processes=N --process_id=I.
"""

import json

from absl import flags
from ml_collections import config_flags

from bitnet_jax.train import runner
from bitnet_jax.train.devices import multihost

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Name or file of a config, with an optional :VARIANT.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run.", required=True
)
flags.mark_flag_as_required("config")
_MULTIHOST = flags.DEFINE_bool(
  "multihost",
  False,  # noqa: FBT003
  "Whether several processes train together.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of the first process."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process."
)


def main(argv):
  """Runs the experiment and prints its metrics."""
  del argv
  others = (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID)
  if not _MULTIHOST.value and any(f.present for f in others):
    given = ", ".join(f"--{f.name}" for f in others if f.present)
    raise ValueError(f"{given} requires --multihost")
  if _MULTIHOST.value:
    multihost.initialize(
      coordinator=_COORDINATOR.value,
      num_processes=_NUM_PROCESSES.value,
      process_id=_PROCESS_ID.value,
    )
  result = runner.run(_CONFIG.value.to_dict(), _WORKDIR.value)
  if multihost.is_primary():
    print(json.dumps(result["metrics"]))
