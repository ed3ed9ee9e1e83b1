"""Evaluates a trained network on all splits of its data.

bitnet-jax evaluate --workdir=runs/digits [--checkpoint=best]
bitnet-jax evaluate --frozen=frozen/digits

Prints one JSON object and writes it to evaluation.json.
"""

import json

from absl import flags

from bitnet_jax.programs import frozen
from bitnet_jax.train import runner

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_FROZEN = flags.DEFINE_string("frozen", None, "Folder of a frozen model.")
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "last", "Checkpoint to load: last, best or a step."
)


def main(argv):
  """Evaluates and prints."""
  del argv
  run, model = _WORKDIR.value, _FROZEN.value
  if run is not None and model is None:
    found = runner.evaluate_run(run, _CHECKPOINT.value)
  elif model is not None and run is None:
    found = frozen.evaluate_frozen(model)
  else:
    raise ValueError("exactly one of --workdir and --frozen is required")
  print(json.dumps(found))
