"""Classification of documents from the pieces that are in them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.batches import bag_of_words
from bitnet_jax.data.splits import Cuts
from bitnet_jax.data.text.tokenizers import Ragged, load_tokenizer
from bitnet_jax.data.views.labelled import load_labelled
from bitnet_jax.models.wide_mlp import WideMlp
from bitnet_jax.train.config.settings import (
  DataOptions,
  Kind,
  Settings,
  Site,
  check_least,
)
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.losses import check_smoothing, cross_entropy

WEIGHTINGS = ("mean", "tfidf")
TABLE = "embedding"  # The parameter of the model with a row a piece.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentOptions(DataOptions):
  """The group ``data`` of the task "documents".

  Attributes:
    source: where the labelled texts come from, see ``load_labelled``, like the
      next two.
    column: where the texts stand; ``None`` where the source says it.
    label: where the classes stand.
    tokenizer: see ``load_tokenizer``.
    vocab_size: to which a tokenizer is trained; ``None`` for those of files.
    special_tokens: whether a document begins with the token "cls" and ends with
      "sep".
    weighting: what a piece counts for: "mean" or "tfidf", see ``make_bags``.
    valid_fraction: share of the training split, for a source without "valid".
    test_fraction: share of the training split, for a source without "test".
    split_seed: seed of these cuts.
    data_dir: where TFDS looks.
  """

  column: str | None
  label: str
  tokenizer: str
  vocab_size: int | None
  special_tokens: bool
  weighting: str
  valid_fraction: float
  test_fraction: float
  split_seed: int
  data_dir: str | None

  def __post_init__(self):
    super().__post_init__()
    choices.check(self.weighting, WEIGHTINGS, key="data.weighting")
    check_least("data", self, vocab_size=1, split_seed=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentsTaskOptions:
  """The group ``task``.

  Attributes:
    label_smoothing: see ``losses.cross_entropy``; in training only.
  """

  label_smoothing: float

  def __post_init__(self):
    check_smoothing(self.label_smoothing)


@dataclasses.dataclass(frozen=True)
class Documents:
  """Softmax classification; sums "loss", "accuracy" and "confusion".

  Attributes:
    model: maps bags of pieces to logits.
    num_classes: number of classes.
    label_smoothing: see ``cross_entropy``; in training only.
  """

  model: WideMlp
  num_classes: int
  label_smoothing: float = 0.0

  def init(self, key: jax.Array) -> Mapping[str, Any]:
    """See ``base.Task``."""
    return self.model.init(key, *_example(), num_documents=1)

  def weight(self, batch: base.Batch) -> jax.Array:
    """Returns the number of documents that are not padding."""
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
    """See ``base.Task``.

    Only the rows of the table that are in the batch are used. Without "rows" in
    it, the table has no others.
    """
    labels, table = batch["labels"], params[TABLE]
    if "rows" in batch:
      table = jnp.take(table, batch["rows"], axis=0, mode="clip")
    params = {**params, TABLE: table}
    cfg = dataclasses.replace(self.model.cfg, vocab_size=len(table))
    logits, variables = base.apply(
      self.model.clone(cfg=cfg),
      params,
      variables,
      batch["columns"],
      batch["segments"],
      batch["weights"],
      key=key,
      deterministic=deterministic,
      strength=strength,
      num_documents=len(labels),
    )
    smoothing = 0.0 if deterministic else self.label_smoothing
    losses = cross_entropy(logits, labels, label_smoothing=smoothing)
    predicted, mask = jnp.argmax(logits, -1), base.example_mask(batch)
    confusion = jnp.zeros((self.num_classes, self.num_classes))
    totals = {
      "loss": jnp.sum(losses * mask),
      "accuracy": jnp.sum((predicted == labels) * mask),
      "confusion": confusion.at[labels, predicted].add(mask),
      "weight": jnp.sum(mask),
    }
    return totals, variables


def _example():
  """Returns columns, segments and weights of one piece in one document."""
  return jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32), jnp.ones(1)


def build(settings: Settings, site: Site) -> base.Problem:
  """Builds data, model and task; see ``base.Problem``."""
  data: DocumentOptions = settings.data
  if settings.optim.accumulate_steps > 1:
    raise ValueError(
      f"optim.accumulate_steps is {settings.optim.accumulate_steps}; batches of"
      " documents are flat and cannot be split: it must be 1"
    )
  found = load_labelled(
    data.source,
    Cuts(
      valid_fraction=data.valid_fraction,
      test_fraction=data.test_fraction,
      split_seed=data.split_seed,
      data_dir=data.data_dir,
    ),
    columns=(data.column,) if data.column else (),
    label=data.label,
  )
  tokenizer = load_tokenizer(
    data.tokenizer,
    texts=lambda: found.splits["train"].texts[0],
    vocab_size=data.vocab_size,
    cache=site.folder,
  )
  ids = _encode(data, found, tokenizer)
  vocabulary = bag_of_words.occurring(list(ids.values()))
  digest = _digest(tokenizer, vocabulary)
  splits = _bags(data, found, ids, vocabulary)
  num_classes, train = len(found.class_names), splits["train"]
  model = base.make_model(
    settings, num_classes=num_classes, vocab_size=train.vocab_size
  )
  assert isinstance(model, WideMlp)
  layers = base.find_layers(settings, model, *_example(), num_documents=1)
  train_batch = bag_of_words.train_batches(
    train, batch_size=data.batch_size, seed=settings.seed, **site.part
  )

  def eval_batches(split: str):
    return bag_of_words.eval_batches(
      splits[split], batch_size=data.rows_of_evaluation, **site.part
    )

  return base.Problem(
    task=Documents(model, num_classes, settings.task.options.label_smoothing),
    layers=layers,
    splits=tuple(splits),
    num_examples=len(train.labels),
    fingerprint=f"{found.fingerprint} vocabulary {digest}",
    metric_names=("accuracy", "loss", "macro_f1"),
    train_batch=train_batch,
    eval_batches=eval_batches,
    finish=_finish,
    sparse_param=TABLE if model.cfg.param_dtype == "float32" else None,
  )


def _encode(data, found, tokenizer):
  """Returns the ids of each split."""
  ids = {
    name: tokenizer.encode_ragged(
      split.texts[0], where=f"{data.source}: {name} document"
    )
    for name, split in found.splits.items()
  }
  if data.special_tokens:
    first, last = (
      [tokenizer.need(role, purpose="data.special_tokens")]
      for role in ("cls", "sep")
    )
    ids = {
      name: Ragged.of(np.concatenate([first, text, last]) for text in texts)
      for name, texts in ids.items()
    }
  return ids


def _digest(tokenizer, vocabulary):
  """Names the pieces that the rows of the table stand for."""
  digest = hashlib.sha256(tokenizer.fingerprint.encode())
  digest.update(vocabulary.tobytes())
  return f"sha256:{digest.hexdigest()}"


def _bags(data, found, ids, vocabulary):
  """Returns the bags of each split."""
  idf = None
  if data.weighting == "tfidf":
    idf = bag_of_words.inverse_frequency(ids["train"], vocabulary)
  return {
    name: bag_of_words.count_words(
      ids[name], split.labels, vocabulary, name=name, idf=idf
    )
    for name, split in found.splits.items()
  }


def _finish(split, sums):
  metrics = base.finish_averages(split, sums)
  return metrics | {"macro_f1": scores.macro_f1(sums["confusion"])}


KIND = Kind(DocumentOptions, DocumentsTaskOptions, build)
