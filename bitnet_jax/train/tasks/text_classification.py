"""Classification and regression of texts and of pairs of texts, as in GLUE."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.batches import order, rows
from bitnet_jax.data.views import labelled
from bitnet_jax.train.config.settings import Kind, Settings, Site, check_least
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.losses import check_smoothing, cross_entropy
from bitnet_jax.train.tasks.text_options import TextOptions
from bitnet_jax.train.tasks.token_prediction import (
  TokenTask,
  arguments,
  shapes_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledOptions(TextOptions):
  """The group ``data`` of the task "text_classification".

  Attributes:
    source: "file:PATH", "textgcn:FOLDER/NAME" or "tfds:NAME", see
      ``load_labelled``.
    columns: where the texts stand, one or two.
    label: the column of the labels.
    class_names: in their order; empty for those of the data.
    seq_len: tokens a row.
    too_long: what becomes of longer ones: "error" or "cut", which is logged.
  """

  columns: tuple[str, ...]
  label: str
  class_names: tuple[str, ...]
  seq_len: int
  too_long: str

  def __post_init__(self):
    super().__post_init__()
    check_least("data", self, seq_len=3)
    choices.check(self.too_long, rows.TOO_LONG, key="data.too_long")
    if len({*self.class_names}) < len(self.class_names):
      raise ValueError(
        f"data.class_names is {self.class_names}, which names a class twice"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassificationOptions:
  """The group ``task``.

  Attributes:
    label_smoothing: see ``losses.cross_entropy``; in training only.
    regression: whether labels are numbers, and the loss their squared error.
  """

  label_smoothing: float
  regression: bool

  def __post_init__(self):
    check_smoothing(self.label_smoothing)
    if self.regression and self.label_smoothing:
      raise ValueError(
        f"task.label_smoothing is {self.label_smoothing}, which does not apply"
        " to task.regression"
      )


@dataclasses.dataclass(frozen=True)
class TextClassification(TokenTask):
  """One output for a row of tokens.

  Classification sums a confusion matrix [truth, prediction]. Regression keeps
  the predictions and labels of a whole split, each at its index, so that their
  ranks can be compared.

  Attributes:
    num_classes: 1 for regression.
    label_smoothing: see ``losses.cross_entropy``; in training only.
    num_slots: examples of the largest split.
  """

  num_classes: int
  label_smoothing: float
  num_slots: int

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
    args, kwargs = arguments(batch)
    logits, variables = base.apply(
      self.model,
      params,
      variables,
      *args,
      key=key,
      deterministic=deterministic,
      strength=strength,
      **kwargs,
    )
    logits = logits.astype(jnp.float32)
    sums = self._classified if self.num_classes > 1 else self._estimated
    totals = sums(logits, batch, deterministic=deterministic)
    return totals | {"weight": jnp.sum(batch["mask"])}, variables

  def _classified(self, logits, batch, *, deterministic):
    smoothing = 0.0 if deterministic else self.label_smoothing
    labels, mask = batch["labels"], batch["mask"]
    losses = cross_entropy(logits, labels, label_smoothing=smoothing)
    found = jnp.argmax(logits, -1)
    totals = {
      "loss": jnp.sum(losses * mask),
      "accuracy": jnp.sum((found == labels) * mask),
    }
    if deterministic:
      empty = jnp.zeros((self.num_classes, self.num_classes), jnp.float32)
      totals["confusion"] = empty.at[labels, found].add(mask)
    return totals

  def _estimated(self, logits, batch, *, deterministic):
    found, labels, mask = logits[:, 0], batch["labels"], batch["mask"]
    totals = {"loss": jnp.sum((found - labels) ** 2 * mask)}
    if deterministic:
      empty = jnp.zeros(self.num_slots, jnp.float32)
      for name, values in (("found", found), ("labels", labels)):
        # What is filled up has an index beyond the end, which is dropped.
        totals[name] = empty.at[batch["index"]].add(values * mask)
    return totals


def build(settings: Settings, site: Site) -> base.Problem:
  """Builds data, model and task; see ``base.Problem``."""
  data: LabelledOptions = settings.data
  options: TextClassificationOptions = settings.task.options
  data.check_fits(settings.model, "seq_len")
  corpus = labelled.load_labelled(
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
    lambda: [t for column in corpus.splits["train"].texts for t in column],
    site,
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
  batch_at = order.train_batches(
    examples["train"],
    batch_size=data.batch_size,
    seed=settings.seed,
    **site.part,
  )
  example = shapes_of(batch_at(0))
  model = base.make_model(
    settings, vocab_size=tokenizer.vocab_size, num_classes=num_classes
  )
  args, kwargs = arguments(example)

  def eval_batches(split: str) -> Iterator[Mapping[str, np.ndarray]]:
    size = data.rows_of_evaluation
    found = order.eval_batches(examples[split], batch_size=size, **site.part)
    for i, batch in enumerate(found):
      own = len(batch["labels"])
      first = i * size + site.process_index * own
      yield {**batch, "index": np.arange(first, first + own, dtype=np.int32)}

  def finish(split: str, sums: Mapping[str, Any]) -> dict[str, float]:
    metrics = base.finish_averages(split, sums)
    if options.regression:
      return metrics | _correlations(sums, len(examples[split]))
    return metrics | {
      name: score(sums["confusion"]) for name, score in by_name.items()
    }

  by_name: dict[str, Any] = {
    "macro_f1": scores.macro_f1,
    "matthews": scores.matthews,
  }
  if num_classes == 2:
    by_name["f1"] = scores.f1
  names = ("accuracy", "loss", *by_name)
  if options.regression:
    names = ("loss", "pearson", "spearman")
  return base.Problem(
    task=TextClassification(
      model,
      example,
      num_classes,
      options.label_smoothing,
      max(len(rows) for rows in examples.values()),
    ),
    layers=base.find_layers(settings, model, *args, **kwargs),
    splits=tuple(corpus.splits),
    num_examples=len(examples["train"]),
    fingerprint=base.with_vocabulary(corpus.fingerprint, tokenizer),
    metric_names=tuple(sorted(names)),
    train_batch=batch_at,
    eval_batches=eval_batches,
    finish=finish,
    tokenizer=tokenizer,
    tokens=data.seq_len,
  )


def _correlations(sums: Mapping[str, Any], count: int) -> dict[str, float]:
  """Returns how predictions of so many examples go with their labels."""
  found, labels = sums["found"][:count], sums["labels"][:count]
  if not np.isfinite(found).all():  # The loss says so, and ends the run.
    return {"pearson": np.nan, "spearman": np.nan}
  return {
    "pearson": scores.pearson(found, labels),
    "spearman": scores.spearman(found, labels),
  }


KIND = Kind(LabelledOptions, TextClassificationOptions, build)
