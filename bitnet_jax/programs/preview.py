"""A run before it starts: its summary, its memory, and one of its batches."""

import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.train import summary
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.tasks.facts import DataFacts

_PICTURES = 16  # of a batch that are drawn
_ROWS = 3  # of texts or numbers that are printed
_MOST_CHARACTERS = 300
_CHANNELS = (1, 3)
_TEXTS = ("inputs", "tokens", "targets")  # arrays of token ids
_SHOWN = (*_TEXTS, "nodes", "labels")


def preview(experiment: Experiment, folder: str) -> str:
  """Returns the summary of a run, the memory of its step, and its first batch.

  Compiles the training step. Pictures are drawn to a file in the temporary
  folder; texts and numbers are part of the result.

  Args:
    experiment: the run.
    folder: the workdir, which is only named.
  """
  batch = experiment.data.train_batch(0)
  with experiment.activate():
    text = summary.of_start(experiment, folder)
    memory = _memory_of_step(experiment)
  tokenizer = experiment.data.tokenizer
  drawn = show_batch(batch, experiment.task.facts, tokenizer)
  first, *others = drawn
  lines = [f"{'batch 0':{summary.INDENT}}{first}"]
  lines += [f"{'':{summary.INDENT}}{line}" for line in others]
  return "\n".join([text, *memory, *lines])


def _memory_of_step(experiment: Experiment) -> Iterator[str]:
  """Yields the memory that XLA plans for temporary values, if it tells."""
  if experiment.distillation is not None:
    return
  step: Any = experiment.train_step()
  compiled = step.lower(*experiment.step_arguments()).compile()
  stats = compiled.memory_analysis()
  if stats is not None:
    indent, size = " " * summary.INDENT, summary.size(stats.temp_size_in_bytes)
    yield f"{indent}{size} more for temporary values of a step"


def show_batch(
  batch: Mapping[str, Any], facts: DataFacts, tokenizer: Tokenizer | None
) -> Iterator[str]:
  """Yields lines that show a batch.

  Args:
    batch: arrays whose first axis counts examples, or those of a graph.
    facts: what the data decided.
    tokenizer: the vocabulary, if the data are text.
  """
  arrays = {name: np.asarray(jax.device_get(x)) for name, x in batch.items()}
  inputs = arrays.get("inputs")
  if inputs is not None and _is_pictures(inputs):
    labels = [_label(i, facts) for i in arrays["labels"][:_PICTURES]]
    yield f"{draw(inputs[:_PICTURES], labels)} ({', '.join(labels)})"
    return
  for name, array in arrays.items():
    yield f"{name} {array.dtype}{list(array.shape)}"
    for row in array[:_ROWS] if name in _SHOWN else ():
      if name == "labels" and facts.num_classes:
        shown = _label(row, facts)
      elif tokenizer is not None and name in _TEXTS:
        shown = repr(tokenizer.decode(row[row < tokenizer.vocab_size]))
      else:
        shown = np.array2string(row, threshold=8, precision=3).replace("\n", "")
      yield f"  {shown:.{_MOST_CHARACTERS}}"


def draw(pictures: np.ndarray, labels: list[str]) -> pathlib.Path:
  """Draws pictures with their labels to a PNG file in the temporary folder.

  Args:
    pictures: [n, height, width, channels], uint8, or any floats.
    labels: of each.
  """
  from matplotlib.figure import Figure

  columns = min(8, len(pictures))
  rows = -(-len(pictures) // columns)
  figure = Figure(figsize=(1.5 * columns, 1.7 * rows), layout="constrained")
  axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
  for axis in axes:
    axis.axis("off")
  for axis, picture, label in zip(axes, pictures, labels, strict=False):
    if picture.dtype != np.uint8:
      low, high = picture.min(), picture.max()
      picture = (picture - low) / max(high - low, 1e-12)
    if picture.shape[-1] == 1:
      axis.imshow(picture[..., 0], cmap="gray")
    else:
      axis.imshow(picture)
    axis.set_title(label, fontsize=8, parse_math=False)
  with tempfile.NamedTemporaryFile(
    prefix="bitnet_jax-batch-", suffix=".png", delete=False
  ) as file:
    figure.savefig(file, format="png")
  return pathlib.Path(file.name)


def _is_pictures(inputs: np.ndarray) -> bool:
  return inputs.ndim == 4 and inputs.shape[-1] in _CHANNELS


def _label(value: Any, facts: DataFacts) -> str:
  """Returns the name of a class, or its number without names."""
  if facts.class_names and np.ndim(value) == 0:
    return facts.class_names[int(value)]
  return str(value)
