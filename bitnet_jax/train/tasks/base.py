"""What every kind of task gives to the step, the loop and the runner."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.layers.introspection import BitLayer, bit_layers
from bitnet_jax.models import registry
from bitnet_jax.train.config.settings import Settings

Batch = Mapping[str, jax.Array]
# Sums over examples or tokens; "weight" is the sum of their weights. A sum may
# be an array, such as a confusion matrix.
Totals = dict[str, jax.Array]


class Task(Protocol):
  """What the step and the loop need to know of an experiment."""

  @property
  def model(self) -> nn.Module:
    """The module whose parameters are trained."""
    ...

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """Returns the variables of the model."""
    ...

  def weight(self, batch: Batch) -> jax.Array:
    """Returns the sum of the weights of what the loss is averaged over."""
    ...

  def totals(
    self,
    params: Any,
    variables: Any,
    batch: Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[Totals, Any]:
    """Returns sums of metrics, "loss" and "weight" among them, and the
    variables after the call.
    """
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """Data, model and loss of one experiment.

  Attributes:
    task: loss and metrics of a batch.
    layers: the quantizable layers of the model.
    splits: names, among "train", "valid" and "test".
    num_examples: of the training split.
    fingerprint: names the data by content or version, never by its place.
    metric_names: of one split.
    train_batch: from a step to this process's part of its batch.
    eval_batches: from a split to the batches that go through it once.
    finish: from a split and the sums over all of it to its metrics.
    sparse_param: name of a parameter of which a batch reads only the rows in
      "rows", see ``SparseAdam``; ``None`` for none.
    tokenizer: of text, if it is text.
    tokens: of one example, filling included; 0 where examples have none.
    score: from a split, the variables of the model and the mesh to the scores
      of what the model writes for all of the split, which takes long: at the
      end of a run only. Called by all processes, with one result.
    batches_per_epoch: how many go once through the training split, where they
      end with it; ``None`` where batches run on from one pass to the next.
  """

  task: Task
  layers: Sequence[BitLayer]
  splits: tuple[str, ...]
  num_examples: int
  fingerprint: str
  metric_names: tuple[str, ...]
  train_batch: Callable[[int], Mapping[str, np.ndarray]]
  eval_batches: Callable[[str], Iterable[Mapping[str, np.ndarray]]]
  finish: Callable[[str, Mapping[str, Any]], dict[str, float]]
  sparse_param: str | None = None
  tokenizer: Tokenizer | None = None
  tokens: int = 0
  score: Callable[[str, Any, Mesh], dict[str, float]] | None = None
  batches_per_epoch: int | None = None


def make_model(settings: Settings, **from_data: Any) -> nn.Module:
  """Returns the model of a config.

  Args:
    settings: the config.
    **from_data: what the data decides, see ``ModelOptions.make``.
  """
  config = settings.model.make(**from_data)
  family = registry.get_family(settings.model.name)
  return family.module(config, settings.quant.make_rules())


def find_layers(
  settings: Settings, model: nn.Module, *inputs: Any, **more: Any
) -> Sequence[BitLayer]:
  """Returns the quantizable layers of a model, all rules checked against them.

  Args:
    settings: the config.
    model: made from it.
    *inputs: of one call, arrays or ``jax.ShapeDtypeStruct``.
    **more: likewise, by keyword.

  Raises:
    ValueError: for inputs that the model does not take, an unused rule, or no
      layer for the recipe.
  """
  try:
    layers = bit_layers(model, *inputs, **more)
  except (TypeError, ValueError) as error:
    shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(inputs))
    raise ValueError(
      f"model.name is {settings.model.name!r}, which does not take inputs of"
      f" the shape {shapes} that {settings.data.source} has: {error}"
    ) from error
  quant = settings.quant
  registry.check_rules(quant.rules, layers)
  is_float = quant.make_recipe().is_float
  if not is_float and all(layer.recipe.is_float for layer in layers):
    raise ValueError(
      f"quant.recipe is {quant.recipe!r}, but quant.rules leave it none of the"
      f" layers ({', '.join(layer.path for layer in layers)}); take 'float', or"
      " fewer rules"
    )
  return layers


def apply(
  model: nn.Module,
  params: Any,
  variables: Any,
  *inputs: Any,
  key: jax.Array,
  deterministic: bool,
  strength: jax.Array | None,
  **kwargs: Any,
) -> tuple[Any, Any]:
  """Calls a model, and returns its output and the variables after the call."""
  dropout_key, quantize_key = jax.random.split(key)
  output, new_variables = model.apply(
    {"params": params, **variables},
    *inputs,
    deterministic=deterministic,
    strength=strength,
    rngs={"dropout": dropout_key, "quantize": quantize_key},
    mutable=[] if deterministic else list(variables),
    **kwargs,
  )
  return output, variables if deterministic else dict(new_variables)


def with_vocabulary(fingerprint: str, tokenizer: Tokenizer) -> str:
  """Returns what names texts and the ids that they become."""
  return f"{fingerprint} vocabulary {tokenizer.fingerprint}"


def example_mask(batch: Batch) -> jax.Array:
  """Returns [batch], one for an example and zero for filling."""
  ones = jnp.ones(batch["labels"].shape, jnp.float32)
  return batch.get("mask", ones)


def averages(totals: Mapping[str, Any]) -> dict[str, Any]:
  """Divides the sums that are numbers by their weight."""
  return {
    name: total / totals["weight"]
    for name, total in totals.items()
    if name != "weight" and jnp.ndim(total) == 0
  }


def finish_averages(split: str, sums: Mapping[str, Any]) -> dict[str, float]:
  """Returns the averages of sums over a split; see ``Problem.finish``."""
  del split
  return {name: float(value) for name, value in averages(sums).items()}
