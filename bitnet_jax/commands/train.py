r"""Trains the network of a config; starting again resumes a stopped run.

bitnet-jax train --config=digits_mlp --workdir=runs/digits
bitnet-jax train --config=digits_cnn:B --config.quant.recipe=b158_median \
  --config.seed=1 --workdir=runs/digits-median
bitnet-jax train --config=pydoc_decoder --workdir=runs/pydoc --dry_run \
  --check_export=gguf:tq2_0

Every config key is a flag; --config=NAME --help shows the keys.

On several hosts, start it on each host with --multihost and a workdir that all
hosts share. JAX detects Cloud TPU, SLURM and GKE; other clusters also need
--coordinator=HOST:PORT --num_processes=N --process_id=I.
"""

import json

from absl import flags
from ml_collections import config_flags

from bitnet_jax.programs import preview
from bitnet_jax.train import console, runner, summary
from bitnet_jax.train.build import build
from bitnet_jax.train.config.command_line import origin
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


_DRY_RUN = flags.DEFINE_bool(
  "dry_run",
  False,  # noqa: FBT003
  "Show what would be run, with a batch, and stop.",
)
_CHECK_EXPORT = flags.DEFINE_multi_string(
  "check_export",
  None,
  "Refuse to start unless the result can be exported to this format, such as"
  " gguf:tq2_0; may be given several times.",
)
_QUIET = flags.DEFINE_bool(
  "quiet",
  False,  # noqa: FBT003
  "Print the metrics only.",
)
_JSON = flags.DEFINE_bool(
  "json",
  False,  # noqa: FBT003
  "Print each logged step and the result as JSON lines, and nothing else.",
)


def main(argv):
  """Runs the experiment and prints its metrics."""
  del argv
  _join()
  config, workdir = _CONFIG.value.to_dict(), _WORKDIR.value
  if _QUIET.value and _JSON.value:
    raise ValueError("--quiet and --json exclude each other")
  mode = "quiet" if _QUIET.value else "json" if _JSON.value else "text"
  with console.showing(mode):
    if _DRY_RUN.value:
      experiment = build(config)
      _check(experiment)
      print(preview.preview(experiment, workdir))
      return
    result = runner.run(config, workdir, _check, origin=origin())
    console.event("result", **result)
    if console.shows_text():
      console.say(summary.of_end(result, workdir))
    if mode != "json" and multihost.is_primary():
      print(json.dumps(result["metrics"]))


def _join():
  """Joins the other processes, if there are any."""
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


def _check(experiment):
  """Checks the formats of --check_export."""
  forms = _CHECK_EXPORT.value or ()
  if forms and _MULTIHOST.value:
    raise ValueError(
      "--check_export works in one process; check with --dry_run, without"
      " --multihost"
    )
  for form in forms:
    # Training works without the packages of the extra "export".
    from bitnet_jax.export import runs as exports

    exports.check_export(experiment, form)
