"""Evaluates a trained network on all splits of its data.

python experiments/evaluate.py --workdir=runs/digits [--checkpoint=best]
python experiments/evaluate.py --frozen=frozen/digits

Prints one JSON object and writes it to evaluation.json.
"""

import json
import pathlib
import sys

from absl import app, flags

from bitnet_jax.train import bucket, frozen, runner

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_FROZEN = flags.DEFINE_string("frozen", None, "Folder of a frozen model.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "last, best or a step.")


def main(argv):
  """Evaluates and prints."""
  del argv
  try:
    run, model = _WORKDIR.value, _FROZEN.value
    if run is not None and model is None:
      found = runner.evaluate_run(bucket.place(run), _CHECKPOINT.value)
    elif model is not None and run is None:
      found = frozen.evaluate_frozen(pathlib.Path(model).expanduser())
    else:
      raise ValueError("give --workdir or --frozen, one of them")
    print(json.dumps(found))
  except (ImportError, OSError, ValueError) as error:
    sys.exit(bucket.with_addresses(f"error: {error}"))


if __name__ == "__main__":
  app.run(main, flags_parser=runner.parse_flags)
