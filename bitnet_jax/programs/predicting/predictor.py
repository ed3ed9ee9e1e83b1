"""A trained model that predicts: opens it, and computes batch by batch."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from bitnet_jax.files import PathLike, local_path
from bitnet_jax.programs import frozen
from bitnet_jax.programs.predicting import families, graphs, language
from bitnet_jax.programs.predicting.answers import Answer
from bitnet_jax.programs.predicting.families import Family
from bitnet_jax.programs.predicting.inputs import Item
from bitnet_jax.train import console
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.devices.mesh import batch_shards, place_batch
from bitnet_jax.train.folder import bucket, workdir
from bitnet_jax.train.folder.trained import load_model
from bitnet_jax.train.loop import place_strength
from bitnet_jax.train.model import TrainedModel
from bitnet_jax.train.step import make_predict_step
from bitnet_jax.train.tasks.registry import TASKS

FAMILIES: dict[str, type[Family]] = {
  "causal_lm": language.Likelihoods,
  "classification": families.Arrays,
  "detection": families.Canvases,
  "documents": families.Bags,
  "graph_classification": graphs.Graphs,
  "masked_lm": language.Masks,
  "node_classification": graphs.Nodes,
  "text_classification": families.Texts,
  "translation": language.Pairs,
}
# Errors of a single input.
INPUT_ERRORS = (ArithmeticError, OSError, ValueError)


class Predicted(NamedTuple):
  """An input with its answer, or with the error that it caused.

  Attributes:
    item: the input.
    answer: of the model; ``None`` after an error.
    note: what else to say of it, or "".
    error: why there is no answer.
  """

  item: Item
  answer: Answer | None
  note: str = ""
  error: Exception | None = None


@dataclasses.dataclass(frozen=True)
class Predictor:
  """A trained model with the inputs and answers of its task.

  Attributes:
    found: the model.
    family: its inputs and answers.
  """

  found: TrainedModel
  family: Family

  def predict(
    self, items: Iterable[Item], batch_size: int | None = None
  ) -> Iterator[Predicted]:
    """Yields the answers for inputs, in their order.

    An input that cannot be read yields its error. Batches have one size, that
    of evaluation unless there are fewer inputs.

    Args:
      items: the inputs, which are read when their batch is due.
      batch_size: most inputs of a batch; by default that of evaluation.
    """
    most = batch_size or self.found.settings.data.rows_of_evaluation
    batches = _batched(items, most)
    first = next(batches, None)
    if first is None:
      return
    size = rows(len(first), most, batch_shards(self.found.mesh))
    compute = self._compute()
    for batch in itertools.chain([first], batches):
      yield from self._predict_batch(batch, size, compute)

  def _predict_batch(self, batch, size, compute) -> list[Predicted]:
    """Returns the answers of a batch, errors among them."""
    read = [self._read(item) for item in batch]
    good = [example for example, predicted in read if predicted.error is None]
    answers = iter([])
    if good:
      with self.found.activate():
        answers = iter(self.family.answer(good, size, compute))
    return [
      predicted
      if predicted.error is not None
      else predicted._replace(answer=next(answers))
      for _, predicted in read
    ]

  def _read(self, item: Item) -> tuple[Any, Predicted]:
    """Returns the example of an input, and its prediction without answer."""
    try:
      example, note = self.family.encode(item.read())
    except INPUT_ERRORS as error:
      return None, Predicted(item, None, error=error)
    return example, Predicted(item, None, note)

  def _compute(self) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Returns the compiled model, as evaluation computes it."""
    found = self.found
    step = jax.jit(
      make_predict_step(found.task, layers=found.layers),
      out_shardings=NamedSharding(found.mesh, PartitionSpec()),
    )
    strength = place_strength(
      found.settings.quant.phase_in.strength(found.step), found.mesh
    )
    key = found.evaluation_key()
    full_graph = TASKS[found.settings.task.name].full_graph

    def compute(batch: Mapping[str, np.ndarray]) -> np.ndarray:
      placed = place_batch(batch, found.mesh, full_graph=full_graph)
      outputs = step(found.variables, placed, key, strength)
      return np.asarray(jax.device_get(outputs), np.float32)

    return compute


def open_run(folder: PathLike, checkpoint: str = "last") -> Predictor:
  """Opens a checkpoint of a run.

  Args:
    folder: the workdir.
    checkpoint: "last", "best", or a step.

  Raises:
    ValueError: if there is no run or no such checkpoint, or if its task has no
      predictions.
  """
  keep_compiled()
  folder = bucket.place(folder)
  found = load_model(folder, checkpoint)
  if workdir.read_result(folder) is None:
    total = workdir.read_run(folder)[0]["total_steps"]
    console.say(f"{folder} is not finished: step {found.step} of {total}")
  return _make(found)


def open_frozen(folder: PathLike) -> Predictor:
  """Opens what ``frozen.freeze_run`` put into a folder.

  Raises:
    FileNotFoundError: if there is no frozen model.
    ValueError: if a file is damaged, or if its task has no predictions.
  """
  keep_compiled()
  return _make(frozen.load_frozen_model(local_path(folder)))


def _make(found: TrainedModel) -> Predictor:
  name = found.settings.task.name
  if name not in FAMILIES:
    raise ValueError(
      f"task.name is {name!r}, which predict does not know (only"
      f" {', '.join(FAMILIES)}); generate writes with such a model"
    )
  family = FAMILIES[name](found)
  if family.reads == "texts":
    families.tokenizer_of(found)
  return Predictor(found, family)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
  """Yields lists of so many items; the last may have fewer."""
  left = iter(items)
  while batch := list(itertools.islice(left, size)):
    yield batch


def rows(count: int, most: int, shards: int) -> int:
  """Returns the rows of batches, for so many inputs in the first one.

  A power of two for fewer than ``most``, so that few sizes are compiled.
  """
  size = min(1 << (count - 1).bit_length(), most)
  return shards * -(-size // shards)
