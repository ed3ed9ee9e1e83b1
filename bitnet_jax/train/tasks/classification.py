"""Classification of arrays: images, or feature vectors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.data import standardization
from bitnet_jax.data.batches import order
from bitnet_jax.data.batches.images import Arrays
from bitnet_jax.data.sources import registry
from bitnet_jax.data.splits import Cuts, Dataset
from bitnet_jax.train.config.settings import (
  DataOptions,
  Kind,
  Settings,
  Site,
  check_least,
)
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.losses import check_smoothing, cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayOptions(DataOptions):
  """The group ``data`` of the task "classification".

  Attributes:
    source: "embedded:digits", "embedded:xor", "tfds:NAME" or "file:PATH.npz".
    num_classes: checked against the labels; ``None``: as the source says.
    valid_fraction: share of the training split, for a source without "valid".
    test_fraction: share of the training split, for a source without "test".
    split_seed: seed of these cuts.
    standardize: whether inputs get mean 0 and deviation 1, per channel (or
      feature) of the training split; else uint8 pixels are divided by 255.
    random_crop: padding of random crops, in pixels; 0 for none.
    random_flip: whether images are mirrored at random.
    data_dir: where TFDS looks.
    image_size: side to which TFDS images are resized and cropped.
  """

  num_classes: int | None
  valid_fraction: float
  test_fraction: float
  split_seed: int
  standardize: bool
  random_crop: int
  random_flip: bool
  data_dir: str | None
  image_size: int | None

  def __post_init__(self):
    super().__post_init__()
    check_least(
      "data", self, num_classes=1, image_size=1, random_crop=0, split_seed=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationOptions:
  """The group ``task``.

  Attributes:
    label_smoothing: see ``losses.cross_entropy``; in training only.
  """

  label_smoothing: float

  def __post_init__(self):
    check_smoothing(self.label_smoothing)


@dataclasses.dataclass(frozen=True)
class Classification:
  """Softmax classification; metrics "loss" and "accuracy".

  Attributes:
    model: maps standardized inputs to logits.
    example: one example's shape without the batch axis.
    mean: subtracted from the inputs, per channel (or feature), of their rank.
    std: divides them, likewise.
    label_smoothing: see ``cross_entropy``; in training only.
  """

  model: nn.Module
  example: tuple[int, ...]
  mean: np.ndarray
  std: np.ndarray
  label_smoothing: float = 0.0

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """See ``base.Task``."""
    return self.model.init(key, jnp.zeros((1, *self.example), jnp.float32))

  def weight(self, batch: base.Batch) -> jax.Array:
    """Returns the number of examples that are not padding."""
    return jnp.sum(base.example_mask(batch))

  def totals(
    self,
    params: Any,
    variables: Any,
    batch: base.Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[base.Totals, Any]:
    """See ``base.Task``."""
    inputs = (batch["inputs"].astype(jnp.float32) - self.mean) / self.std
    logits, variables = base.apply(
      self.model,
      params,
      variables,
      inputs,
      key=key,
      deterministic=deterministic,
      strength=strength,
    )
    losses = cross_entropy(
      logits,
      batch["labels"],
      label_smoothing=0.0 if deterministic else self.label_smoothing,
    )
    hits = jnp.argmax(logits, -1) == batch["labels"]
    mask = base.example_mask(batch)
    totals = {
      "loss": jnp.sum(losses * mask),
      "accuracy": jnp.sum(hits * mask),
      "weight": jnp.sum(mask),
    }
    return totals, variables


def build(settings: Settings, site: Site) -> base.Problem:
  """Builds data, model and task; see ``base.Problem``."""
  data: ArrayOptions = settings.data
  registry.check_name(data.source)
  dataset = registry.load(
    data.source,
    Cuts(
      valid_fraction=data.valid_fraction,
      test_fraction=data.test_fraction,
      split_seed=data.split_seed,
      data_dir=data.data_dir,
    ),
    num_classes=data.num_classes,
    image_size=data.image_size,
  )
  train = dataset.splits["train"]
  model = base.make_model(settings, num_classes=dataset.num_classes)
  shape = train.inputs.shape[1:]
  layers = base.find_layers(
    settings, model, jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  )
  mean, std = _standardization(dataset, data)
  train_batch = order.train_batches(
    Arrays(
      split=train, random_crop=data.random_crop, random_flip=data.random_flip
    ),
    batch_size=data.batch_size,
    seed=settings.seed,
    **site.part,
  )

  def eval_batches(split: str):
    return order.eval_batches(
      Arrays(split=dataset.splits[split]),
      batch_size=data.rows_of_evaluation,
      **site.part,
    )

  return base.Problem(
    task=Classification(
      model, shape, mean, std, settings.task.options.label_smoothing
    ),
    layers=layers,
    splits=tuple(dataset.splits),
    num_examples=len(train.inputs),
    fingerprint=dataset.fingerprint,
    metric_names=("accuracy", "loss"),
    train_batch=train_batch,
    eval_batches=eval_batches,
    finish=base.finish_averages,
  )


def _standardization(dataset: Dataset, data: ArrayOptions):
  """Returns what is subtracted and what divides, of the rank of the inputs.

  Raises:
    ValueError: values are not finite, or all the same, after that.
  """
  inputs = dataset.splits["train"].inputs
  if data.standardize:
    mean, std = standardization.channel_statistics(inputs)
    standardization.check_spread(
      inputs, mean, std, where=f"{data.source}: train"
    )
  else:
    largest = 255 if inputs.dtype == np.uint8 else 1
    mean, std = np.zeros(1, np.float32), np.array([largest], np.float32)
  for name, split in dataset.splits.items():
    standardization.check_standardized(
      split.inputs, mean, std, where=f"{data.source}: {name}"
    )
  shape = (1,) * (inputs.ndim - 1) + (-1,)
  return mean.reshape(shape), std.reshape(shape)


KIND = Kind(ArrayOptions, ClassificationOptions, build)
