"""Evaluates a trained network on all splits of its data.

python experiments/evaluate.py --workdir=runs/digits [--checkpoint=best]

Prints one JSON object and writes it to evaluation.json.
"""

import json
import pathlib
import sys

from absl import app, flags

from bitnet_jax.train import runner

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run.", required=True
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "last, best or a step.")


def main(argv):
  """Evaluates and prints."""
  del argv
  folder = pathlib.Path(_WORKDIR.value).expanduser()
  try:
    print(json.dumps(runner.evaluate_run(folder, _CHECKPOINT.value)))
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  app.run(main, flags_parser=runner.parse_flags)
