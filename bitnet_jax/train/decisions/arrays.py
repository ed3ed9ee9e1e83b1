"""Decides from pictures and other arrays."""

import numpy as np

from bitnet_jax.data.views import arrays
from bitnet_jax.train.decisions import columns, examples, sources
from bitnet_jax.train.decisions.decisions import Decisions

_SHOWN = 8  # names of classes
_OF_IMAGES = ("cnn", "vit")  # models
_MULTIPLE = 8  # of the side of pictures


def ask(decisions: Decisions) -> None:
  """Decides what the task "classification" leaves open."""
  source = sources.check(decisions, "arrays")
  if arrays.is_table(source):
    columns.decide_features(decisions, sources.read(decisions, "labeled texts"))
  _decide_image_size(decisions, source)
  decisions.decide("data.label", "label")
  decisions.decide("data.columns", ())
  data = decisions.settings.data
  found = arrays.load(
    source,
    sources.uncut(decisions),
    num_classes=data.num_classes,
    image_size=data.image_size,
    image_fit=data.image_fit,
    label=data.label,
    columns=data.columns,
  )
  train = found.splits["train"]
  model = decisions.config["model"]["name"]
  if model in _OF_IMAGES and train.inputs.ndim < 4:
    raise ValueError(
      f"data.source is {source!r}, a table of numbers, but model.name is"
      f" {model!r}, for pictures; use --config=features"
    )
  examples.check_classes(decisions, train.labels, found.class_names)
  names = ", ".join(found.class_names[:_SHOWN])
  names += ", ..." if len(found.class_names) > _SHOWN else ""
  decisions.decide("data.num_classes", found.num_classes, names or "the labels")
  decisions.decide("checkpoint.metric", "valid/accuracy", "labels are classes")
  decisions.decide("checkpoint.mode", "max")
  examples.decide_cuts(decisions, found.splits, num_classes=found.num_classes)
  held = decisions.given("data.valid_fraction")
  held += decisions.given("data.test_fraction")
  examples.decide_batch_size(decisions, round(len(train) * (1 - held)))


def _decide_image_size(decisions: Decisions, source: str) -> None:
  """Decides to what size pictures are scaled; none if they can stay."""
  if not decisions.is_open("data.image_size"):
    return
  found = arrays.sizes(source, sources.uncut(decisions))
  if not found:
    return
  most = decisions.budget.image_size
  sides = [min(size) for size in found]
  smallest, largest = min(sides), max(map(max, found))
  if len({*found}) == 1 and largest <= most:
    return
  side = min(most, max(int(np.median(sides)) // _MULTIPLE, 1) * _MULTIPLE)
  reason = f"pictures have sides of {smallest} to {largest} pixels"
  decisions.decide("data.image_size", side, reason)
