"""What the command line of this program requested, for records of runs."""

import shlex
import sys
from typing import Any

from absl import flags as absl_flags

from bitnet_jax.train.config import flags
from bitnet_jax.train.folder import records
from bitnet_jax.train.folder.starts import Origin


def origin() -> Origin:
  """Returns the command line, its config file, and the keys that it changed."""
  path, overrides = flags.config_flags(sys.argv)
  file, _, variant = (path or "").partition(":")
  program = sys.argv[0]
  if program.endswith(".py"):
    program = f"python {shlex.quote(program)}"
  config: Any = absl_flags.FLAGS["config"].value
  resolved = config.to_dict()
  return Origin(
    command=" ".join([program, *map(shlex.quote, sys.argv[1:])]),
    config_file=file or None,
    variant=variant or None,
    overrides={key: records.look_up(resolved, key) for key in overrides},
  )
