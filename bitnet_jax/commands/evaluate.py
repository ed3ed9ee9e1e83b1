"""Evaluates a trained network on all splits of its data.

bitnet-jax evaluate --workdir=runs/digits [--checkpoint=best]
bitnet-jax evaluate --frozen=frozen/digits

Prints one JSON object and writes it to evaluation.json. A classifier also has
precision, recall, F1 and support of each class there, of which standard error
shows those of the last split, and confusion_valid.png and confusion_test.png.
"""

import json

from absl import flags

from bitnet_jax.files import local_path
from bitnet_jax.programs import confusion, frozen
from bitnet_jax.train import runner
from bitnet_jax.train.folder import bucket

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_FROZEN = flags.DEFINE_string("frozen", None, "Folder of a frozen model.")
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "last", "Checkpoint to load: last, best or a step."
)


def main(argv):
  """Evaluates, draws and prints."""
  del argv
  run, model = _WORKDIR.value, _FROZEN.value
  confusions = {}
  if run is not None and model is None:
    folder = bucket.place(run)
    found = runner.evaluate_run(folder, _CHECKPOINT.value, confusions)
  elif model is not None and run is None:
    folder = local_path(model)
    found = frozen.evaluate_frozen(folder, confusions)
  else:
    raise ValueError("exactly one of --workdir and --frozen is required")
  confusion.show(folder, found, confusions)
  print(json.dumps(found))
