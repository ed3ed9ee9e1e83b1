"""Writes a trained network in a form that others run.

python experiments/export.py --workdir=runs/digits --format=packed \
  --output=frozen/digits

Formats: "packed" is a folder with ternary codes, five to a byte, for
evaluate.py, generate.py and bitnet_jax.inference.load_frozen. What is written
is read back and compared. Prints how large it is.
"""

import pathlib
import sys

from absl import app, flags

from bitnet_jax.train import frozen, runner

FORMATS = {"packed": frozen.freeze_run}

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "A folder that is not there yet.", required=True
)
_FORMAT = flags.DEFINE_enum("format", "packed", list(FORMATS), "Which form.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "last, best or a step.")


def main(argv):
  """Writes the model and prints its size."""
  del argv
  folder = pathlib.Path(_WORKDIR.value).expanduser()
  output = pathlib.Path(_OUTPUT.value).expanduser()
  try:
    size = FORMATS[_FORMAT.value](folder, output, _CHECKPOINT.value)
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(size.table())


if __name__ == "__main__":
  app.run(main, flags_parser=runner.parse_flags)
