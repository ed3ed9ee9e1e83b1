"""Sequence to sequence: translation, summarization."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from bitnet_jax import choices
from bitnet_jax.data.batches import rows
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.data.views import pairs
from bitnet_jax.inference import beam_search
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext, Settings, TaskSpec
from bitnet_jax.train.devices import multihost
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.tasks import base, scores
from bitnet_jax.train.tasks.text_options import TextOptions
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
  token_data,
)

SCORES = {
  "bleu": lambda written, wanted: {"bleu": scores.bleu(written, wanted)},
  "chrf": lambda written, wanted: {"chrf": scores.chrf(written, wanted)},
  "rouge": scores.rouge,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairOptions(TextOptions):
  """The group ``data`` of the task "translation".

  Attributes:
    source: "file:PATH", "tfds:NAME" or "hf:NAME", see ``pairs.load``.
    languages: languages of the encoder and of the decoder; see ``pairs.load``.
    input_len: largest number of tokens that the encoder reads.
    target_len: largest number of tokens that the decoder writes.
    too_long: what happens to longer texts: "error", or "cut", which is logged.
  """

  languages: tuple[str, ...]
  input_len: int
  target_len: int
  too_long: str

  def __post_init__(self):
    super().__post_init__()
    groups.check_least("data", self, input_len=2, target_len=2)
    choices.check(self.too_long, rows.TOO_LONG, key="data.too_long")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationOptions(TokenOptions):
  """The group ``task``.

  Attributes:
    scores: names in ``SCORES``, of the texts that a run writes at its end.
    num_beams: number of beams of the search; 1 is greedy.
    length_penalty: of the search, see ``beam_search``.
  """

  scores: tuple[str, ...]
  num_beams: int
  length_penalty: float

  def __post_init__(self):
    super().__post_init__()
    for name in self.scores:
      choices.check(name, SCORES, key="task.scores")
    groups.check_least("task", self, num_beams=1)


def load(settings: Settings, context: RunContext) -> base.TaskData:
  """Loads the pairs of texts; see ``TaskSpec``."""
  data: PairOptions = settings.data
  options: TranslationOptions = settings.task.options
  data.check_fits(settings.model, "input_len", "target_len")
  corpus = pairs.load(data.source, data.cuts(), languages=data.languages)
  train = corpus.splits["train"]
  tokenizer = data.load_tokenizer(
    lambda: itertools.chain(train.sources, train.targets), context
  )
  if options.num_beams > tokenizer.vocab_size:
    raise ValueError(
      f"task.num_beams is {options.num_beams}, more than the"
      f" {tokenizer.vocab_size} tokens of the vocabulary"
    )

  def make(split: str) -> rows.SequencePairs:
    texts = corpus.splits[split]
    return rows.sequence_pairs(
      tokenizer.encode_ragged(texts.sources, where="source"),
      tokenizer.encode_ragged(texts.targets, where="target"),
      tokenizer,
      input_len=data.input_len,
      target_len=data.target_len,
      too_long=data.too_long,
    )

  examples = data.by_split(corpus.splits, make)
  made = token_data(
    settings,
    context,
    examples,
    tokenizer,
    length=data.input_len + data.target_len,
    fingerprint=corpus.fingerprint,
    features=corpus.features,
  )

  def score(
    model: Any, split: str, variables: Mapping[str, Any], mesh: Mesh
  ) -> dict[str, float]:
    references = list(corpus.splits[split].targets)
    ids = [
      row
      for batch in made.eval_batches(split)
      for row in translate(settings, tokenizer, model, variables, batch, mesh)
    ]
    # Of all processes. Only the last batch is padded, at its end.
    written = [decode(row, tokenizer) for row in ids[: len(references)]]
    return {
      name: value
      for key in options.scores
      for name, value in SCORES[key](written, references).items()
    }

  return dataclasses.replace(made, score=score)


def translate(
  settings: Settings,
  tokenizer: Tokenizer,
  model: Any,
  variables: Mapping[str, Any],
  batch: Mapping[str, np.ndarray],
  mesh: Mesh,
) -> np.ndarray:
  """Returns the ids written for a batch, rows of all processes in order."""
  options: TranslationOptions = settings.task.options
  placed = place_batch({n: batch[n] for n in ("inputs", "input_mask")}, mesh)
  outputs = beam_search(
    model,
    variables,
    placed["inputs"],
    placed["input_mask"],
    start_id=int(batch["tokens"][0, 0]),
    stop_id=_stop_id(tokenizer),
    max_length=settings.data.target_len,
    num_beams=options.num_beams,
    length_penalty=options.length_penalty,
    banned=tokenizer.unused_ids(tokenizer.vocab_size),
  )
  return multihost.gather_rows(outputs)


def _stop_id(tokenizer: Tokenizer) -> int:
  return tokenizer.need("eos", purpose="an encoder-decoder")


def decode(row: np.ndarray, tokenizer: Tokenizer) -> str:
  """Returns the text of a row, up to its end."""
  ended = np.flatnonzero(row == _stop_id(tokenizer))
  return tokenizer.decode(row[: ended[0]] if ended.size else row)


SPEC = TaskSpec(
  PairOptions, TranslationOptions, load, TokenPrediction, ("encoder_decoder",)
)
