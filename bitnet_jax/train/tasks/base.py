"""Base classes of tasks: loss and metrics (``Supervised``), and ``TaskData``.

A ``Supervised`` task needs a config and the facts of its data, but not the
data. ``TaskData`` holds the batches.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bitnet_jax.data.batches.ahead import TrainAhead
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.layers.introspection import BitLayer, bit_layers
from bitnet_jax.models import registry
from bitnet_jax.train.config.settings import RunContext, Settings
from bitnet_jax.train.tasks.facts import DataFacts

Batch = Mapping[str, jax.Array]
# Sums over examples or tokens; "weight" is the sum of their weights. A sum may
# be an array, such as a confusion matrix.
Totals = dict[str, jax.Array]
# Positional and keyword arguments of a model.
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class Task(Protocol):
  """The interface of a task for a training step."""

  def weight(self, batch: Batch) -> jax.Array:
    """Returns the weight by which the summed loss is divided."""
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


@dataclasses.dataclass(frozen=True)
class Supervised(abc.ABC):
  """A model, and the loss and metrics of its outputs against known targets.

  A subclass defines the arguments of its model (``inputs``) and the sums over a
  batch (``sums``).

  Attributes:
    model: the module whose parameters are trained.
    facts: what the data decided.
    options: the group ``task`` of the config.
    detailed: whether evaluation sums up all that it can, such as a confusion
      matrix, which takes more time.
  """

  model: nn.Module
  facts: DataFacts
  options: Any
  detailed: bool = False

  @abc.abstractmethod
  def inputs(self, batch: Mapping[str, Any]) -> Inputs:
    """Returns the arguments of the model for a batch."""

  @abc.abstractmethod
  def sums(self, outputs: Any, batch: Batch, *, deterministic: bool) -> Totals:
    """Returns sums of metrics over a batch, "loss" among them."""

  @property
  def metric_names(self) -> tuple[str, ...]:
    """Names of the metrics of ``finish``."""
    return ("accuracy", "loss")

  @property
  def sparse_param(self) -> str | None:
    """Name of a parameter of which a batch reads only the rows in "rows".

    See ``SparseAdam``; ``None`` for none.
    """
    return None

  def finish(self, split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of a split, from the sums over all of it."""
    del split
    return {name: float(value) for name, value in averages(sums).items()}

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """Returns fresh variables of the model."""
    zeros = {
      n: jnp.zeros(x.shape, x.dtype) for n, x in self.facts.shapes().items()
    }
    args, kwargs = self.inputs(zeros)
    return self.model.init(key, *args, **kwargs)

  def weight(self, batch: Batch) -> jax.Array:
    """Returns how many targets count; 1 for none, so that no loss is NaN."""
    return jnp.maximum(jnp.sum(target_mask(batch)), 1)

  def select(self, params: Any, batch: Batch) -> tuple[nn.Module, Any]:
    """Returns the model and the parameters that a batch needs."""
    del batch
    return self.model, params

  def outputs(
    self,
    params: Any,
    variables: Any,
    batch: Batch,
    *,
    key: jax.Array,
    deterministic: bool,
    strength: jax.Array | None,
  ) -> tuple[Any, Any]:
    """Returns the outputs of the model, and its variables that changed."""
    model, params = self.select(params, batch)
    args, kwargs = self.inputs(batch)
    dropout_key, quantize_key = jax.random.split(key)
    return model.apply(
      {"params": params, **variables},
      *args,
      deterministic=deterministic,
      strength=strength,
      rngs={"dropout": dropout_key, "quantize": quantize_key},
      mutable=[] if deterministic else list(variables),
      **kwargs,
    )

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
    """See ``Task``."""
    outputs, updated = self.outputs(
      params,
      variables,
      batch,
      key=key,
      deterministic=deterministic,
      strength=strength,
    )
    totals = self.sums(outputs, batch, deterministic=deterministic)
    count = jnp.sum(target_mask(batch)) if deterministic else self.weight(batch)
    totals["weight"] = count
    return totals, variables if deterministic else dict(updated)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskData:
  """The batches of a task, and the facts of its data.

  Attributes:
    facts: what the data decided.
    train_batch: returns this process's part of the batch of a step.
    eval_batches: returns the batches of one pass through a split.
    tokenizer: the vocabulary, if the data are text.
    tokens: tokens of one example, padding included; 0 if there are none.
    reseed: returns the training batches of another seed, of the same examples.
    score: returns the scores of generated text for a split, from model, split,
      variables and mesh. It is slow, so it runs at the end of a run only. All
      processes call it and get the same result.
  """

  facts: DataFacts
  train_batch: Callable[[int], Mapping[str, np.ndarray]]
  eval_batches: Callable[[str], Iterable[Mapping[str, np.ndarray]]]
  tokenizer: Tokenizer | None = None
  tokens: int = 0
  reseed: Callable[[int], Callable[[int], Mapping[str, np.ndarray]]] | None = (
    None
  )
  score: Callable[[nn.Module, str, Any, Mesh], dict[str, float]] | None = None

  def close(self) -> None:
    """Ends threads that make training batches in advance, if there are any."""
    if isinstance(self.train_batch, TrainAhead):
      self.train_batch.close()


def of_training(settings: Settings, context: RunContext) -> dict[str, int]:
  """Returns batch size, seed and this process's part of training batches."""
  sizes = {"batch_size": settings.data.batch_size, "seed": settings.seed}
  return sizes | context.part


def of_evaluation(settings: Settings, context: RunContext) -> dict[str, int]:
  """Returns batch size and this process's part of evaluation batches."""
  return {"batch_size": settings.data.rows_of_evaluation, **context.part}


def make_model(settings: Settings, facts: DataFacts) -> nn.Module:
  """Returns the model of a config, with the sizes that the data decided."""
  config = settings.model.make(
    vocab_size=facts.vocab_size, num_classes=facts.num_classes
  )
  family = registry.get_family(settings.model.name)
  return family.module(config, settings.quant.make_rules())


def find_layers(settings: Settings, task: Supervised) -> Sequence[BitLayer]:
  """Returns the quantizable layers of a model, all rules checked against them.

  Raises:
    ValueError: for inputs that the model does not take, an unused rule, or no
      layer for the recipe.
  """
  constants: dict[str, Any] = {}

  def inputs(batch):
    args, kwargs = task.inputs(batch)
    arrays = {n: x for n, x in kwargs.items() if isinstance(x, jax.Array)}
    constants.update({n: x for n, x in kwargs.items() if n not in arrays})
    return args, arrays

  args, arrays = jax.eval_shape(inputs, task.facts.shapes())
  try:
    layers = bit_layers(task.model, *args, **arrays, **constants)
  except (TypeError, ValueError) as error:
    shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(args))
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


def target_mask(batch: Batch) -> jax.Array:
  """Returns "mask": 1 for targets that count, 0 for others and for padding.

  Without one, all "labels" count.
  """
  if "mask" in batch:
    return batch["mask"]
  return jnp.ones(batch["labels"].shape, jnp.float32)


def averages(totals: Mapping[str, Any]) -> dict[str, Any]:
  """Divides the sums that are numbers by their weight."""
  return {
    name: total / totals["weight"]
    for name, total in totals.items()
    if name != "weight" and jnp.ndim(total) == 0
  }
