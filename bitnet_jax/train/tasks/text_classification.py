"""Classification and regression of texts and of pairs of texts, as in GLUE."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.batches import rows
from bitnet_jax.data.views import labeled_texts
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.classifier import Classifier
from bitnet_jax.train.tasks.facts import DataFacts
from bitnet_jax.train.tasks.losses import LossOptions
from bitnet_jax.train.tasks.text_options import TextOptions
from bitnet_jax.train.tasks.token_prediction import (
  TokenTask,
  token_data,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDataOptions(TextOptions):
  """The group ``data`` of the task "text_classification".

  Attributes:
    source: "file:PATH", "textgcn:FOLDER/NAME" or "tfds:NAME", see
      ``labeled_texts.load``.
    columns: columns of the texts, one or two.
    label: column of the labels.
    class_names: in their order; empty for those of the data.
    seq_len: tokens per row.
    too_long: what happens to longer texts: "error", or "cut", which is logged.
  """

  columns: tuple[str, ...]
  label: str
  class_names: tuple[str, ...]
  seq_len: int
  too_long: str

  def __post_init__(self):
    super().__post_init__()
    groups.check_least("data", self, seq_len=3)
    choices.check(self.too_long, rows.TOO_LONG, key="data.too_long")
    if len({*self.class_names}) < len(self.class_names):
      raise ValueError(
        f"data.class_names is {self.class_names}, which names a class twice"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassificationOptions(LossOptions):
  """The group ``task``.

  Attributes:
    regression: whether labels are numbers, and the loss their squared error.
  """

  regression: bool

  def __post_init__(self):
    super().__post_init__()
    if self.regression and self.label_smoothing:
      raise ValueError(
        f"task.label_smoothing is {self.label_smoothing}, which does not apply"
        " to task.regression"
      )


class TextClassification(TokenTask, Classifier):
  """Softmax classification of rows of tokens; see ``Classifier``."""

  @property
  def scores(self) -> Mapping[str, Any]:
    """See ``Classifier``."""
    found = {"macro_f1": scores.macro_f1, "matthews": scores.matthews}
    if self.facts.num_classes == 2:
      found["f1"] = scores.f1
    return found


class TextRegression(TokenTask):
  """Regression of rows of tokens, by the squared error.

  Evaluation keeps the predictions and labels of a whole split, each at its
  index, so that their ranks can be compared.
  """

  metric_names = ("loss", "pearson", "spearman")

  def sums(
    self, outputs: Any, batch: base.Batch, *, deterministic: bool
  ) -> base.Totals:
    """See ``Supervised``."""
    predicted = outputs[:, 0].astype(jnp.float32)
    labels, mask = batch["labels"], batch["mask"]
    totals = {"loss": jnp.sum((predicted - labels) ** 2 * mask)}
    if deterministic:
      largest = max(split.examples for split in self.facts.splits.values())
      empty = jnp.zeros(largest, jnp.float32)
      for name, values in (("predicted", predicted), ("labels", labels)):
        # Padding has an index beyond the end, which is dropped.
        totals[name] = empty.at[batch["index"]].add(values * mask)
    return totals

  def finish(self, split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    """See ``Supervised``."""
    count = self.facts.splits[split].examples
    predicted, labels = sums["predicted"][:count], sums["labels"][:count]
    metrics = super().finish(split, sums)
    for name, score in (
      ("pearson", scores.pearson),
      ("spearman", scores.spearman),
    ):
      # Of values that are not finite the loss is neither, and ends the run.
      finite = np.isfinite(predicted).all()
      metrics[name] = score(predicted, labels) if finite else np.nan
    return metrics


def make_task(
  model: nn.Module, facts: DataFacts, options: TextClassificationOptions
) -> base.Supervised:
  """Returns the task that the options name."""
  cls = TextRegression if options.regression else TextClassification
  return cls(model, facts, options)


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the texts; see ``TaskSpec``."""
  data: TextDataOptions = settings.data
  options: TextClassificationOptions = settings.task.options
  data.check_fits(settings.model, "seq_len")
  corpus = labeled_texts.load(
    data.source,
    data.cuts(),
    columns=data.columns,
    label=data.label,
    regression=options.regression,
    class_names=data.class_names,
  )
  num_classes = 1 if options.regression else len(corpus.class_names)
  if num_classes == 1 and not options.regression:
    raise ValueError(
      f"data.source is {data.source!r}, whose only class is"
      f" {corpus.class_names[0]!r}; there must be two at least"
    )
  tokenizer = data.load_tokenizer(
    lambda: itertools.chain.from_iterable(corpus.splits["train"].texts),
    context,
  )

  def make(split: str) -> rows.ClassifiedRows:
    texts = corpus.splits[split]
    return rows.classified_rows(
      [tokenizer.encode_ragged(column) for column in texts.texts],
      texts.labels,
      tokenizer,
      seq_len=data.seq_len,
      too_long=data.too_long,
    )

  examples = data.by_split(corpus.splits, make)

  made = token_data(
    settings,
    context,
    examples,
    tokenizer,
    length=data.seq_len,
    fingerprint=corpus.fingerprint,
    num_classes=num_classes,
    class_names=corpus.class_names,
    features=corpus.features,
  )

  def eval_batches(split: str) -> Iterator[Mapping[str, np.ndarray]]:
    for i, batch in enumerate(made.eval_batches(split)):
      own = len(batch["labels"])
      first = i * data.rows_of_evaluation + context.process_index * own
      yield {**batch, "index": np.arange(first, first + own, dtype=np.int32)}

  return dataclasses.replace(made, eval_batches=eval_batches)


SPEC = TaskSpec(
  TextDataOptions,
  TextClassificationOptions,
  load,
  make_task,
  ("encoder",),
)
