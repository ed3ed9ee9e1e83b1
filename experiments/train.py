"""Trains the network of a config; a second start goes on where it stopped.

python experiments/train.py --config=configs/digits_mlp.py --workdir=runs/digits

Any key of the config is a flag: --config.quant.recipe=b158_median.
"""

import json
import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

from bitnet_jax.train import runner

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file, with an optional :VARIANT.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run.", required=True
)
flags.mark_flag_as_required("config")


def main(argv):
  """Runs the experiment and prints its metrics."""
  del argv
  try:
    result = runner.run(
      _CONFIG.value.to_dict(), pathlib.Path(_WORKDIR.value).expanduser()
    )
  except runner.Interrupted as stop:
    print(stop, file=sys.stderr)
    sys.exit(128 + stop.signal)
  except (FloatingPointError, ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(json.dumps(result["metrics"]))


if __name__ == "__main__":
  app.run(main, flags_parser=runner.parse_flags)
