"""Classification of documents as bags of subword tokens."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.batches import bag_of_words
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer, load_tokenizer
from bitnet_jax.data.views import labeled_texts
from bitnet_jax.models.wide_mlp import WideMlp
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.classifier import Classifier
from bitnet_jax.train.tasks.facts import (
  ArraySpec,
  BagFacts,
  DataFacts,
  sizes_of,
)
from bitnet_jax.train.tasks.losses import LossOptions

WEIGHTINGS = ("mean", "tfidf")
EMBEDDING = "embedding"  # The model's parameter with a row per subword token.


@dataclasses.dataclass(frozen=True, kw_only=True)
class BagOptions(groups.DataOptions):
  """The group ``data`` of the task "documents".

  Attributes:
    source: see ``labeled_texts.load``, like the next two.
    column: column of the texts; ``None`` where the source implies it.
    label: column of the classes.
    tokenizer: see ``load_tokenizer``.
    vocab_size: of a tokenizer that is trained; ``None`` for a file.
    special_tokens: whether a document begins with the token "cls" and ends with
      "sep".
    weighting: of subword tokens: "mean" or "tfidf", see ``count_words``.
  """

  column: str | None
  label: str
  tokenizer: str
  vocab_size: int | None
  special_tokens: bool
  weighting: str
  test_fraction: float
  data_dir: str | None
  lowercase = None  # The default of the tokenizer.

  def __post_init__(self):
    super().__post_init__()
    choices.check(self.weighting, WEIGHTINGS, key="data.weighting")
    groups.check_least("data", self, vocab_size=1)


class BagClassification(Classifier):
  """Softmax classification of bags of subword tokens; see ``Classifier``."""

  @property
  def scores(self) -> Mapping[str, Any]:
    """See ``Classifier``."""
    return {"macro_f1": scores.macro_f1}

  def inputs(self, batch: Mapping[str, Any]) -> base.Inputs:
    """See ``Supervised``."""
    args = tuple(batch[name] for name in ("columns", "segments", "weights"))
    return args, {"num_documents": len(batch["labels"])}

  def select(self, params: Any, batch: base.Batch) -> tuple[WideMlp, Any]:
    """Returns the model for the rows of the embedding that are in the batch.

    Without "rows" in the batch, the embedding has no others.
    """
    model: Any = self.model
    embedding = params[EMBEDDING]
    if "rows" in batch:
      embedding = jnp.take(embedding, batch["rows"], axis=0, mode="clip")
    cfg = dataclasses.replace(model.cfg, vocab_size=len(embedding))
    return model.clone(cfg=cfg), {**params, EMBEDDING: embedding}

  @property
  def sparse_param(self) -> str | None:
    """See ``Supervised``."""
    model: Any = self.model
    return EMBEDDING if model.cfg.param_dtype == "float32" else None


# A bag of one subword token.
EXAMPLE = {
  name: ArraySpec(shape=(1,), dtype=dtype)
  for name, dtype in {
    "columns": "int32",
    "segments": "int32",
    "weights": "float32",
    "labels": "int32",
  }.items()
}


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the documents; see ``TaskSpec``."""
  data: BagOptions = settings.data
  if settings.optim.accumulate_steps > 1:
    raise ValueError(
      f"optim.accumulate_steps is {settings.optim.accumulate_steps}; batches of"
      " documents are flat and cannot be split: it must be 1"
    )
  found = labeled_texts.load(
    data.source,
    data.cuts(),
    columns=(data.column,) if data.column else (),
    label=data.label,
  )
  tokenizer = load_tokenizer(
    data.tokenizer,
    texts=lambda: found.splits["train"].texts[0],
    vocab_size=data.vocab_size,
    cache=context.folder,
  )
  ids = _encode(data, found, tokenizer)
  vocabulary = bag_of_words.occurring(list(ids.values()))
  # Names the subword tokens that the rows of the embedding stand for.
  digest = hashlib.sha256(tokenizer.fingerprint.encode() + vocabulary.tobytes())
  idf = None
  if data.weighting == "tfidf":
    idf = bag_of_words.inverse_frequency(ids["train"], vocabulary)
  splits = {
    name: bag_of_words.count_words(
      ids[name], split.labels, vocabulary, name=name, idf=idf
    )
    for name, split in found.splits.items()
  }
  part = base.of_training(settings, context)

  def train_batches(seed: int):
    return bag_of_words.train_batches(splits["train"], **part | {"seed": seed})

  def eval_batches(split: str):
    return bag_of_words.eval_batches(
      splits[split], **base.of_evaluation(settings, context)
    )

  return base.TaskData(
    facts=DataFacts(
      fingerprint=(
        f"{found.fingerprint} vocabulary sha256:{digest.hexdigest()}"
      ),
      splits=sizes_of(found.splits),
      example=EXAMPLE,
      num_classes=len(found.class_names),
      class_names=found.class_names,
      features=found.features,
      vocab_size=splits["train"].vocab_size,
      bag=BagFacts(
        tokenizer=tokenizer.fingerprint,
        ids=tuple(vocabulary.tolist()),
        idf=() if idf is None else tuple(idf.tolist()),
      ),
    ),
    train_batch=train_batches(settings.seed),
    eval_batches=eval_batches,
    tokenizer=tokenizer,
    reseed=train_batches,
  )


def _encode(data, found, tokenizer):
  """Returns the ids of each split."""
  ids = {
    name: tokenizer.encode_ragged(
      split.texts[0], where=f"{data.source}: {name} document"
    )
    for name, split in found.splits.items()
  }
  if not data.special_tokens:
    return ids
  return {
    name: with_special_tokens(texts, tokenizer) for name, texts in ids.items()
  }


def with_special_tokens(
  texts: Iterable[np.ndarray], tokenizer: Tokenizer
) -> Ragged:
  """Returns the ids of texts with "cls" before and "sep" after each."""
  first, last = (
    [tokenizer.need(role, purpose="data.special_tokens")]
    for role in ("cls", "sep")
  )
  return Ragged.of(np.concatenate([first, text, last]) for text in texts)


SPEC = TaskSpec(BagOptions, LossOptions, load, BagClassification, ("wide_mlp",))
