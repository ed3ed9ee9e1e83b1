r"""Trains a run for each combination of config values, and compares them.

bitnet-jax sweep --config=digits_mlp --workdir=runs/sweep \
  --grid=quant.recipe=float,b158,b158_median --grid=seed=0..4

Each --grid has a key of the config and its values, separated by commas; 0..4
stands for 0,1,2,3,4. Their product gives the members of the sweep, each a run
in a folder of its own: runs/sweep/quant.recipe=b158,seed=3. All members are
checked before the first one trains.

The same command resumes a sweep that was stopped, and repeats members that
failed; finished ones are not run again. A larger grid adds members. --workers=4
trains four members at a time, each in a process of its own.
"""

import os
import sys

from absl import flags
from ml_collections import config_flags

from bitnet_jax.programs import comparing
from bitnet_jax.programs.sweeping import grid, members, sweep
from bitnet_jax.train import console
from bitnet_jax.train.config import command_line
from bitnet_jax.train.folder import bucket

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config: a path or a name, with an optional :VARIANT.",
  lock_config=True,
)
flags.mark_flag_as_required("config")
_GRID = flags.DEFINE_multi_string(
  "grid", None, "KEY=VALUE,... or KEY=FIRST..LAST, for each key of the grid."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the sweep.", required=True
)
_WORKERS = flags.DEFINE_integer("workers", 1, "Members at a time.")
_PROGRAM = flags.DEFINE_string(
  "program",
  "auto",
  "auto: members that differ in numbers only (such as seed, rates, dropout)"
  " share data and compiled programs; each: every member has its own.",
)


def main(argv):
  """Runs the sweep and prints the table that compares its members."""
  del argv
  origin = command_line.origin()
  grids = grid.parse(_GRID.value or (), _CONFIG.value)
  for key in grids:
    if key in origin.overrides:
      raise ValueError(f"--config.{key} and --grid={key}=... set the same key")
  if _WORKERS.value > 1:  # On a GPU, the memory is that of the workers.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  members.warn_once()
  found = sweep.sweep(
    _CONFIG.value,
    grids,
    _WORKDIR.value,
    workers=_WORKERS.value,
    program=_PROGRAM.value,
    origin=origin,
  )
  if found.finished:
    _compare(found.finished)
  if found.failed:
    print(
      f"{len(found.failed)} of {len(found.members)} members failed; the same"
      " command tries them again:",
      file=sys.stderr,
    )
    for name, error in found.failed.items():
      print(f"  {name}: {error}", file=sys.stderr)
    sys.exit(1)


def _compare(finished):
  """Prints the table, also of earlier members, and how figures are drawn."""
  root = _WORKDIR.value
  report = comparing.compare(
    finished if bucket.is_in_bucket(root) else [*finished, root]
  )
  for note in report.notes:
    console.say(note)
  print(report.markdown())
  more = console.command("compare", "--figures=figures", _WORKDIR.value)
  console.say(f"figures: {more}")
