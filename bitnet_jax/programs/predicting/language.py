"""Predictions of models that read and write text: written texts, tokens."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from bitnet_jax.data.batches import order, packing, rows
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer
from bitnet_jax.programs.predicting import families
from bitnet_jax.programs.predicting.answers import (
  Answer,
  Values,
  Written,
  largest,
  rounded,
  softmax,
)
from bitnet_jax.programs.predicting.families import Compute, Family
from bitnet_jax.train.tasks import scores, translation

MASK = "[MASK]"  # What a text has for a masked token.
_TOKENS = 5  # that are shown for a masked token


class Pairs(Family):
  """Translation, summarization, and other texts to texts."""

  @property
  def columns(self) -> tuple[str, ...]:
    """See ``Family``."""
    given = self.found.settings.data.languages[:1]
    return self.found.task.facts.features or given or ("text",)

  def encode(self, value: Sequence[str]) -> tuple[np.ndarray, str]:
    """See ``Family``."""
    ids = families.encoded(value[0], families.tokenizer_of(self.found))
    most = self.found.settings.data.input_len
    return ids, families.cut_note(len(ids) + 1, most)

  def answer(
    self, examples: Sequence[np.ndarray], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    del compute
    found, count = self.found, len(examples)
    tokenizer, data = families.tokenizer_of(found), found.settings.data
    made = rows.SequencePairs(
      sources=Ragged.of(examples),
      targets=Ragged.of([[0]] * count),
      input_len=data.input_len,
      target_len=data.target_len,
      start_id=found.task.facts.start_id or 0,
      eos_id=tokenizer.need("eos", purpose="an encoder-decoder"),
      pad_id=tokenizer.pad_id or 0,
    )
    batch = families.batch_of(made, count, size)
    written = translation.translate(
      found.settings, tokenizer, found.model, found.variables, batch, found.mesh
    )
    return [
      Written(translation.decode(row, tokenizer)) for row in written[:count]
    ]


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The most likely tokens at each ``MASK`` of a text.

  Attributes:
    found: for each mask, tokens with their probabilities.
  """

  found: Sequence[Sequence[tuple[str, float]]]

  def columns(self, top_k: int | None) -> list[str]:
    """See ``Answer``."""
    return [
      ", ".join(f"{t!r} {100 * p:.1f} %" for t, p in tokens[: top_k or _TOKENS])
      for tokens in self.found
    ]

  def to_json(self, top_k: int | None) -> dict[str, Any]:
    """See ``Answer``."""
    return {
      "masks": [
        [
          {"token": token, "probability": rounded(probability)}
          for token, probability in tokens[: top_k or _TOKENS]
        ]
        for tokens in self.found
      ]
    }


class Masks(Family):
  """The tokens at the masks of texts, such as "Paris is [MASK]."."""

  most_tokens = 100  # that are kept for a mask

  @property
  def columns(self) -> tuple[str, ...]:
    """See ``Family``."""
    return (self.found.settings.data.column,)

  def encode(self, value: Sequence[str]) -> tuple[np.ndarray, str]:
    """See ``Family``."""
    (text,) = value
    tokenizer = families.tokenizer_of(self.found)
    families.encoded(text, tokenizer)
    parts = text.split(MASK)
    if len(parts) == 1:
      raise ValueError(f"it has no {MASK}, for which the model finds tokens")
    ids: list[int] = []
    for number, part in enumerate(parts):
      if number:
        ids.append(tokenizer.need("mask", purpose=MASK))
      if number < len(parts) - 1 and _joins_spaces(tokenizer):
        part = part.rstrip(" ")  # The masked token begins with the space.
      ids += tokenizer.encode(part).tolist()
    cls, sep = (tokenizer.need(r, purpose="an encoder") for r in ("cls", "sep"))
    row, most = np.array([cls, *ids, sep], np.int32), self._seq_len
    if len(row) > most:
      raise ValueError(
        f"it has {len(row)} tokens; the model reads {most} at most"
      )
    masks, most = len(parts) - 1, self._predictions
    if most is not None and masks > most:
      raise ValueError(f"it has {masks} masks; the model reads {most} at most")
    return row, ""

  @property
  def _seq_len(self) -> int:
    return self.found.settings.data.seq_len

  @property
  def _predictions(self) -> int | None:
    """Number of places that the model computes; ``None`` for all."""
    spec = self.found.task.facts.example.get("places")
    return None if spec is None else spec.shape[1]

  def answer(
    self, examples: Sequence[np.ndarray], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``."""
    tokenizer = families.tokenizer_of(self.found)
    mask_id = tokenizer.need("mask", purpose=MASK)
    tokens = np.full((size, self._seq_len), tokenizer.pad_id or 0, np.int32)
    segments = np.zeros_like(tokens)
    for row, ids in enumerate(examples):
      tokens[row, : len(ids)] = ids
      segments[row, : len(ids)] = 1
    batch = {
      "tokens": tokens,
      "segment_ids": segments,
      "positions": np.arange(self._seq_len, dtype=np.int32) * segments,
    }
    places = [np.flatnonzero(ids == mask_id) for ids in examples]
    if self._predictions is not None:
      batch["places"] = np.zeros((size, self._predictions), np.int32)
      for row, found in enumerate(places):
        batch["places"][row, : len(found)] = found
      places = [np.arange(len(found)) for found in places]
    outputs = compute(batch)
    return [
      Tokens([self._likely(outputs[row, place]) for place in found])
      for row, found in enumerate(places)
    ]

  def _likely(self, logits: np.ndarray) -> list[tuple[str, float]]:
    """Returns the most likely tokens; special ones have no text."""
    tokenizer = families.tokenizer_of(self.found)
    probabilities = softmax(logits)
    special = {*tokenizer.special_ids.tolist(), *tokenizer.unused}
    order = largest(probabilities, self.most_tokens + len(special))
    known = [i for i in order if i not in special and i < tokenizer.vocab_size]
    return [
      (tokenizer.decode([i]), float(probabilities[i]))
      for i in known[: self.most_tokens]
    ]


class Likelihoods(Family):
  """How likely texts are for a causal language model."""

  @property
  def columns(self) -> tuple[str, ...]:
    """See ``Family``."""
    return (self.found.settings.data.column,)

  def encode(self, value: Sequence[str]) -> tuple[Any, str]:
    """See ``Family``."""
    (text,) = value
    ids = families.encoded(text, families.tokenizer_of(self.found))
    return (ids, len(text.encode())), ""

  def answer(
    self, examples: Sequence[Any], size: int, compute: Compute
  ) -> list[Answer]:
    """See ``Family``.

    A text is read as evaluation reads a stream: after an end token, in rows of
    ``data.seq_len``.
    """
    made = [self._windows(ids) for ids, _ in examples]
    owner = np.repeat(np.arange(len(made)), [len(m["tokens"]) for m in made])
    windows = {
      name: np.concatenate([m[name] for m in made])
      for name in ("tokens", "targets", "mask")
    }
    nll, count = np.zeros((2, len(made)))
    for first in range(0, len(owner), size):
      rows = np.arange(first, min(first + size, len(owner)))
      part = {name: array[rows] for name, array in windows.items()}
      logits = compute(self._inputs(part["tokens"], size))[: len(rows)]
      lost = -_log_likelihoods(logits, part["targets"]) * part["mask"]
      np.add.at(nll, owner[rows], lost.sum(axis=1))
      np.add.at(count, owner[rows], part["mask"].sum(axis=1))
    if not np.isfinite(nll).all():
      raise FloatingPointError("the model computes NaN or infinity")
    return [
      Values(
        {
          "perplexity": float(scores.perplexity(nll[i], count[i])),
          "bits_per_byte": float(scores.bits_per_byte(nll[i], num_bytes)),
          "tokens": int(count[i]),
        }
      )
      for i, (_, num_bytes) in enumerate(examples)
    ]

  def _windows(self, ids: np.ndarray) -> order.Batch:
    """Returns the rows of one text."""
    data, tokenizer = (
      self.found.settings.data,
      families.tokenizer_of(self.found),
    )
    made = packing.chunks(
      Ragged.of([ids]), tokenizer, seq_len=data.seq_len, stride=data.eval_stride
    )
    return families.batch_of(made, len(made), len(made))

  def _inputs(self, tokens: np.ndarray, size: int) -> order.Batch:
    """Returns what the model reads, padded to a batch."""
    tokens = np.pad(tokens, ((0, size - len(tokens)), (0, 0)), mode="edge")
    batch = {"tokens": tokens}
    if "segment_ids" in self.found.task.facts.example:
      batch["segment_ids"] = np.ones_like(tokens)
      places = np.arange(tokens.shape[1], dtype=np.int32)
      batch["positions"] = places + np.zeros_like(tokens)
    return batch


def _log_likelihoods(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """Returns the log-likelihoods of targets [rows, tokens]."""
  logits = logits.astype(np.float64)
  logits -= logits.max(axis=-1, keepdims=True)
  chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return chosen - np.log(np.exp(logits).sum(axis=-1))


def _joins_spaces(tokenizer: Tokenizer) -> bool:
  """Whether a space and the word behind it are one token."""
  apart = sum(len(tokenizer.encode(text)) for text in (" ", "a"))
  return len(tokenizer.encode(" a")) < apart
