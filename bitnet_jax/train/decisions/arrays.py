"""Decides from pictures and other arrays."""

from bitnet_jax.data.views import arrays
from bitnet_jax.train.decisions import columns, examples, sources
from bitnet_jax.train.decisions.decisions import Decisions

_SHOWN = 8  # names of classes


def ask(decisions: Decisions) -> None:
  """Decides what the task "classification" leaves open."""
  source = sources.check(decisions, "arrays")
  if arrays.is_table(source):
    columns.decide_features(decisions, sources.read(decisions, "labeled texts"))
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
  examples.check_classes(decisions, train.labels, found.class_names)
  names = ", ".join(found.class_names[:_SHOWN])
  names += ", ..." if len(found.class_names) > _SHOWN else ""
  decisions.decide("data.num_classes", found.num_classes, names or "the labels")
  decisions.decide("checkpoint.metric", "valid/accuracy", "labels are classes")
  decisions.decide("checkpoint.mode", "max", "labels are classes")
  examples.decide_cuts(decisions, found.splits, num_classes=found.num_classes)
  held = decisions.given("data.valid_fraction")
  held += decisions.given("data.test_fraction")
  examples.decide_batch_size(decisions, round(len(train) * (1 - held)))
