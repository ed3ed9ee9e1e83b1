"""Predicts classes, numbers or texts for new inputs with a trained model.

bitnet-jax predict --workdir=runs/pets cat.png more/ [--checkpoint=best]
bitnet-jax predict --frozen=frozen/reviews "a fine film" --top_k=2
bitnet-jax predict --workdir=runs/reviews --inputs=reviews.csv --json
cat sentences.txt | bitnet-jax predict --workdir=runs/translation -

An input is a picture, a folder or a quoted pattern of them; a text, or a file
with one; or a table (.csv, .tsv, .jsonl, .npz), whose rows are inputs.
--inputs=FILE has one input a line, and - is standard input. The training data
are not needed. --json prints a JSON line for each input, in their order.

An input that cannot be read is named on standard error; the others are
predicted, and the exit status is 1.
"""

import sys

from absl import flags

from bitnet_jax.programs.predicting import (
  finders,
  inputs,
  predictor,
  printing,
)

POSITIONAL = "INPUT ..."

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_FROZEN = flags.DEFINE_string("frozen", None, "Folder of a frozen model.")
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "last", "Checkpoint to load: last, best or a step."
)
_INPUT = flags.DEFINE_multi_string("input", [], "An input, as the arguments.")
_TEXT = flags.DEFINE_multi_string(
  "text", [], "A text to read; twice for each pair, if the model reads pairs."
)
_INPUTS = flags.DEFINE_multi_string(
  "inputs", [], "File with one input a line, or a table; - is standard input."
)
_FORMAT = flags.DEFINE_string(
  "format", None, "Format of --inputs: lines, csv, tsv or jsonl."
)
_COLUMN = flags.DEFINE_multi_string(
  "column", [], "Column of a table to read; by default those of the run."
)
_TOP_K = flags.DEFINE_integer(
  "top_k", None, "Number of classes to show.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
  "batch_size", None, "Most inputs at a time.", lower_bound=1
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON lines.")  # noqa: FBT003


def main(argv):
  """Predicts and prints; exits with status 1 if an input was not read."""
  request = inputs.Request(
    places=[*argv[1:], *_INPUT.value],
    lists=_INPUTS.value,
    texts=_TEXT.value,
    format=_FORMAT.value,
    columns=_COLUMN.value,
  )
  request.check()
  model = _open()
  items = finders.find(request, model.family)
  predictions = model.predict(items, _BATCH_SIZE.value)
  form = printing.as_json if _JSON.value else printing.Columns()
  if not printing.show_all(predictions, form, _TOP_K.value):
    sys.exit(1)


def _open():
  run, model = _WORKDIR.value, _FROZEN.value
  if run is not None and model is None:
    return predictor.open_run(run, _CHECKPOINT.value)
  if model is not None and run is None:
    return predictor.open_frozen(model)
  raise ValueError("exactly one of --workdir and --frozen is required")
