"""Decides how examples are split and batched, by their number and classes."""

from collections.abc import Mapping, Sequence, Sized

import numpy as np

from bitnet_jax.train.decisions.decisions import Decisions

_FRACTION, _LARGEST = 0.1, 0.3  # of the examples, for validation
_FEWEST = 4  # examples of a validation split, if there are enough
_MANY = 100  # examples, of which some are for testing
_PER_EPOCH = 4  # batches at least
_SHOWN = 3  # names in a message


def check_classes(
  decisions: Decisions, labels: np.ndarray, names: Sequence[str] = ()
) -> None:
  """Checks that there are two classes, and that splits can have all of them.

  Args:
    decisions: the config.
    labels: class of each training example, of the source.
    names: of the classes, if they have any.

  Raises:
    ValueError: for one class, or a class of one example where a validation
      split must be cut; names the classes.
  """
  source = decisions.given("data.source")
  classes, counts = np.unique(labels, return_counts=True)
  shown = [names[c] if c < len(names) else f"{c}" for c in classes.tolist()]
  if len(classes) < 2:
    raise ValueError(
      f"data.source is {source!r}, whose only class is {shown[0]!r}; there must"
      " be two at least"
    )
  single = [name for name, n in zip(shown, counts, strict=True) if n == 1]
  if single and decisions.is_open("data.valid_fraction"):
    more = f" and {len(single) - _SHOWN} more" if len(single) > _SHOWN else ""
    raise ValueError(
      f"data.source is {source!r}, with one example only of"
      f" {', '.join(map(repr, single[:_SHOWN]))}{more}: it cannot be both"
      " trained on and held out; add examples or remove the class, or give"
      " data.valid_fraction to train all the same"
    )


def decide_cuts(
  decisions: Decisions,
  splits: Mapping[str, Sized],
  *,
  num_classes: int = 0,
  size: int | None = None,
  many: int = _MANY,
) -> None:
  """Decides the fractions of "valid" and "test" that are cut from "train".

  Args:
    decisions: the config.
    splits: of the source.
    num_classes: number of classes, which the validation split should have.
    size: how many examples can be drawn; by default those of "train".
    many: how many there must be to cut a test split as well.

  Raises:
    ValueError: if there are too few examples to hold any out.
  """
  n = len(splits["train"]) if size is None else size
  if "test" in splits:
    decisions.decide("data.test_fraction", 0.0, "the source has a test split")
  elif "valid" in splits:
    reason = "the source has a validation split only"
    decisions.decide("data.test_fraction", 0.0, reason)
  elif n < many:
    reason = f"{n} examples are too few to hold out a test split"
    decisions.decide("data.test_fraction", 0.0, reason)
  else:
    reason = "the source has no test split"
    decisions.decide("data.test_fraction", _FRACTION, reason)
  if "valid" in splits:
    reason = "the source has a validation split"
    decisions.decide("data.valid_fraction", 0.0, reason)
    return
  if n < 2 and decisions.is_open("data.valid_fraction"):
    raise ValueError(
      f"data.source is {decisions.given('data.source')!r}, with {n} training"
      " example; there must be two at least, to hold one out"
    )
  wanted = max(num_classes, _FEWEST)
  fraction = min(max(_FRACTION, np.ceil(10 * wanted / n) / 10), _LARGEST)
  if n * fraction < 1:
    fraction = 0.5
  reason = "the source has no validation split"
  decisions.decide("data.valid_fraction", float(fraction), reason)


def decide_batch_size(
  decisions: Decisions, examples: int, *, most: int | None = None
) -> None:
  """Decides the number of examples of an update.

  Args:
    decisions: the config.
    examples: of the training split.
    most: largest number; by default that of the budget.
  """
  unit = decisions.context.shards
  unit *= decisions.config["optim"]["accumulate_steps"]
  size = decisions.budget.batch_size if most is None else most
  while size > 1 and size * _PER_EPOCH > examples:
    size //= 2
  size = max(size // unit * unit, unit)
  reason = f"{examples:,} training examples"
  if unit > 1:
    reason += f", {unit} parts of a batch"
  decisions.decide("data.batch_size", size, reason)
