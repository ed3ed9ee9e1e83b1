"""Classification of arrays: images, or feature vectors."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.data import splits, standardization
from bitnet_jax.data.batches import order
from bitnet_jax.data.batches.ahead import TrainAhead, eval_ahead
from bitnet_jax.data.batches.images import Arrays
from bitnet_jax.data.picture_array import PictureArray
from bitnet_jax.data.sources import pictures
from bitnet_jax.data.splits import Dataset
from bitnet_jax.data.views import arrays
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base
from bitnet_jax.train.tasks.classifier import Classifier
from bitnet_jax.train.tasks.facts import DataFacts, sizes_of, specs_of
from bitnet_jax.train.tasks.losses import LossOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayOptions(groups.DataOptions):
  """The group ``data`` of the task "classification".

  Attributes:
    source: "folder:PATH", "file:PATH.npz", "file:PATH.csv",
      "file:PATH.parquet", "tfds:NAME", "hf:NAME", "embedded:digits" or
      "embedded:xor"; see ``arrays.load``.
    num_classes: checked against the labels; ``None``: that of the source.
    standardize: whether inputs get mean 0 and deviation 1, per channel (or
      feature) of the training split; else uint8 pixels are divided by 255.
    random_crop: padding of random crops, in pixels; 0 for none.
    random_flip: whether images are flipped at random.
    image_size: side of square images, for "folder:", "tfds:" and "hf:".
    image_fit: how these become square: "crop" or "pad", see ``pictures.read``.
    in_memory: whether the pictures of "folder:" are held in memory, see
      ``folder.read``.
    label: column of the classes in a table.
    columns: columns of the features in a table; empty for all others.
    train_examples: number of training examples, see ``splits.limit``; ``None``:
      all.
  """

  num_classes: int | None
  test_fraction: float
  standardize: bool
  random_crop: int
  random_flip: bool
  data_dir: str | None
  image_size: int | None
  image_fit: str
  in_memory: bool | None
  label: str
  columns: tuple[str, ...]
  train_examples: int | None

  def __post_init__(self):
    super().__post_init__()
    least = dict(num_classes=1, image_size=1, random_crop=0, train_examples=1)
    groups.check_least("data", self, **least)
    choices.check(self.image_fit, pictures.FITS, key="data.image_fit")


class Classification(Classifier):
  """Softmax classification of standardized inputs; see ``Classifier``."""

  def inputs(self, batch: Mapping[str, Any]) -> base.Inputs:
    """See ``Supervised``."""
    return (standardized(batch["inputs"], self.facts),), {}


def standardized(inputs: jax.Array, facts: DataFacts) -> jax.Array:
  """Returns inputs [b, ..., channels] less the mean, by the deviation."""
  inputs = inputs.astype(jnp.float32)
  shape = (1,) * (inputs.ndim - 1) + (-1,)
  mean, std = (
    np.array(values, np.float32).reshape(shape)
    for values in (facts.mean, facts.std)
  )
  return (inputs - mean) / std


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the data set; see ``TaskSpec``."""
  data: ArrayOptions = settings.data
  dataset = arrays.load(
    data.source,
    data.cuts(),
    num_classes=data.num_classes,
    image_size=data.image_size,
    image_fit=data.image_fit,
    in_memory=data.in_memory,
    label=data.label,
    columns=data.columns,
  )
  if data.train_examples is not None:
    dataset = splits.limit(
      dataset, data.train_examples, seed=data.split_seed, source=data.source
    )
  train = dataset.splits["train"]
  mean, std = _standardization(dataset, data)
  examples = Arrays(
    split=train, random_crop=data.random_crop, random_flip=data.random_flip
  )
  part = base.of_training(settings, context)

  def train_batches(seed: int):
    batches = order.train_batches(examples, **part | {"seed": seed})
    return TrainAhead(batches) if is_read_later else batches

  def eval_batches(split: str):
    examples = Arrays(split=dataset.splits[split])
    batches = order.eval_batches(
      examples, **base.of_evaluation(settings, context)
    )
    return eval_ahead(batches) if is_read_later else batches

  is_read_later = isinstance(train.inputs, PictureArray)

  return base.TaskData(
    facts=DataFacts(
      fingerprint=dataset.fingerprint,
      splits=sizes_of(dataset.splits),
      example=specs_of({"inputs": train.inputs, "labels": train.labels}),
      num_classes=dataset.num_classes,
      class_names=dataset.class_names,
      features=dataset.features,
      mean=mean,
      std=std,
    ),
    train_batch=train_batches(settings.seed),
    eval_batches=eval_batches,
    reseed=train_batches,
  )


def _standardization(
  dataset: Dataset, data: ArrayOptions
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns mean and standard deviation for the inputs.

  Raises:
    ValueError: standardized values are not finite, or all the same.
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
  return tuple(mean.tolist()), tuple(std.tolist())


SPEC = TaskSpec(
  ArrayOptions, LossOptions, load, Classification, ("cnn", "mlp", "vit")
)
