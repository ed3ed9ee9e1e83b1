"""Rows of one example each: translation pairs, and texts to classify.

`order` defines the names in a batch.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging

from bitnet_jax import choices
from bitnet_jax.data.batches import packing
from bitnet_jax.data.batches.order import Batch, Draws
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer

TOO_LONG = ("error", "cut")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequencePairs:
  """Pairs of input and target sequences; see `sequence_pairs`.

  Attributes:
    sources: n sequences without end tokens.
    targets: n sequences without end tokens.
    input_len: tokens of the encoder, padding included.
    target_len: tokens of the decoder, padding included.
    start_id: first token that the decoder reads.
    eos_id: end token of sources and targets.
    pad_id: id of padding.
  """

  sources: Ragged
  targets: Ragged
  input_len: int
  target_len: int
  start_id: int
  eos_id: int
  pad_id: int

  def __len__(self) -> int:
    return len(self.sources)

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns "inputs", "input_mask", "tokens", "targets" and "mask"."""
    del draws
    inputs, input_mask = self._ended(self.sources, indices, self.input_len)
    targets, mask = self._ended(self.targets, indices, self.target_len)
    start = np.full((len(indices), 1), self.start_id, np.int32)
    return {
      "inputs": inputs,
      "input_mask": input_mask.astype(np.int32),
      "tokens": np.concatenate([start, targets[:, :-1]], axis=1),
      "targets": targets,
      "mask": mask.astype(np.float32),
    }

  def _ended(self, ragged, indices, length):
    """Returns padded sequences with end tokens, and which places are real."""
    lengths = np.minimum(ragged.lengths[indices], length - 1)[:, None]
    places = np.arange(length)
    rows = np.where(
      places == lengths,
      np.int32(self.eos_id),
      _gather(ragged, indices, places, lengths, self.pad_id),
    )
    return rows, places <= lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifiedRows:
  """Texts, or pairs of them, with a label each; see `classified_rows`.

  Attributes:
    texts: one or two, each of n sequences.
    labels: int32 or float32 [n].
    seq_len: tokens a row.
    cls_id: token before each row.
    sep_id: token after each text.
    pad_id: id of padding.
  """

  texts: tuple[Ragged, ...]
  labels: np.ndarray
  seq_len: int
  cls_id: int
  sep_id: int
  pad_id: int

  def __len__(self) -> int:
    return len(self.labels)

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns tokens with "segment_ids" and "type_ids", and "labels".

    "labels" and "mask" are [rows], the others [rows, seq_len].
    """
    del draws
    room = self.seq_len - 1 - len(self.texts)
    lengths = [text.lengths[indices] for text in self.texts]
    places = np.arange(self.seq_len)
    tokens = np.full((len(indices), self.seq_len), self.pad_id, np.int32)
    tokens[:, 0] = self.cls_id
    types = np.zeros_like(tokens)
    start = np.ones((len(indices), 1), np.int64)
    for kind, (text, length) in enumerate(
      zip(self.texts, _fit(lengths, room), strict=True)
    ):
      length = length[:, None]
      inside = (places >= start) & (places < start + length)
      ids = _gather(text, indices, places - start, length, self.pad_id)
      tokens = np.where(inside, ids, tokens)
      end = start + length
      tokens = np.where(places == end, np.int32(self.sep_id), tokens)
      types = np.where((places >= start) & (places <= end), kind, types)
      start = end + 1
    return {
      "tokens": tokens,
      "segment_ids": (places < start).astype(np.int32),
      "type_ids": types.astype(np.int32),
      "labels": self.labels[indices],
      "mask": np.ones(len(indices), np.float32),
    }


def _gather(ragged, indices, places, lengths, pad_id):
  """Returns ids at places of sequences, `pad_id` beyond their ends."""
  inside = (places >= 0) & (places < lengths)
  at = np.where(inside, ragged.offsets[indices][:, None] + places, 0)
  return np.where(inside, ragged.values[at], np.int32(pad_id))


def _fit(lengths, room):
  """Reduces lengths until they fit, the longer of two first."""
  if len(lengths) == 1:
    return [np.minimum(lengths[0], room)]
  first, second = lengths
  first = np.minimum(first, np.maximum(room - second, (room + 1) // 2))
  return [first, np.minimum(second, room - first)]


def sequence_pairs(
  sources: Ragged,
  targets: Ragged,
  tokenizer: Tokenizer,
  *,
  input_len: int,
  target_len: int,
  too_long: str = "error",
) -> SequencePairs:
  """Makes rows for an encoder-decoder.

  The encoder reads `a b c eos`; the decoder reads `start x y` and predicts
  `x y eos`.

  Args:
    sources: n sequences, none empty.
    targets: n sequences, none empty.
    tokenizer: vocabulary with an end token and a start token (see `start_id`).
    input_len: most tokens of the encoder, including the end.
    target_len: most tokens of the decoder, including the end.
    too_long: "error", or "cut" to truncate longer sequences, which is logged.

  Raises:
    ValueError: an argument is out of range, or a sequence is too long; names
      its index.
  """
  packing.check_length("input_len", input_len, 2)
  packing.check_length("target_len", target_len, 2)
  if len(sources) != len(targets):
    raise ValueError(
      f"there are {len(sources)} sources, but {len(targets)} targets"
    )
  for name, ragged, length in (
    ("input_len", sources, input_len),
    ("target_len", targets, target_len),
  ):
    _check_lengths(ragged.lengths + 1, name, length, too_long)
  return SequencePairs(
    sources=sources,
    targets=targets,
    input_len=input_len,
    target_len=target_len,
    start_id=start_id(tokenizer),
    eos_id=tokenizer.need("eos", purpose="an encoder-decoder"),
    pad_id=tokenizer.pad_id or 0,
  )


def start_id(tokenizer: Tokenizer) -> int:
  """Returns the first token that a decoder reads: bos, or else pad.

  Raises:
    ValueError: the vocabulary has neither.
  """
  if tokenizer.bos_id is not None:
    return tokenizer.bos_id
  return tokenizer.need("pad", purpose="a decoder without bos")


def classified_rows(
  texts: Sequence[Ragged],
  labels: np.ndarray,
  tokenizer: Tokenizer,
  *,
  seq_len: int,
  too_long: str = "error",
) -> ClassifiedRows:
  """Makes rows `cls a a sep` or `cls a a sep b b sep` for an encoder.

  Args:
    texts: one or two texts per example, each of n sequences, none empty.
    labels: classes int32 [n], or numbers float32 [n].
    tokenizer: vocabulary with the tokens cls and sep.
    seq_len: tokens in a row, at least 3, or 5 for two texts.
    too_long: "error", or "cut" to truncate the longer text of an example until
      it fits, which is logged.

  Raises:
    ValueError: an argument is out of range, or an example is too long; names
      its index.
  """
  texts = tuple(texts)
  choices.check(len(texts), (1, 2), key="number of texts")
  packing.check_length("seq_len", seq_len, 1 + 2 * len(texts))
  for ragged in texts:
    if len(ragged) != len(labels):
      raise ValueError(
        f"there are {len(ragged)} texts, but {len(labels)} labels"
      )
  lengths = 1 + sum(ragged.lengths + 1 for ragged in texts)
  _check_lengths(lengths, "seq_len", seq_len, too_long)
  return ClassifiedRows(
    texts=texts,
    labels=labels,
    seq_len=seq_len,
    cls_id=tokenizer.need("cls", purpose="a classified row"),
    sep_id=tokenizer.need("sep", purpose="a classified row"),
    pad_id=tokenizer.pad_id or 0,
  )


def _check_lengths(lengths, name, most, too_long):
  """Raises an error for sequences that are too long, or logs them."""
  choices.check(too_long, TOO_LONG, key="too_long")
  long = np.flatnonzero(lengths > most)
  if not long.size:
    return
  if too_long == "error":
    raise ValueError(
      f"example {long[0]} has {lengths[long[0]]} tokens, more than"
      f" {name}={most}; {long.size} of {len(lengths)} examples are too long:"
      f' use {lengths.max()}, or too_long="cut" to truncate them'
    )
  logging.warning(
    "Cut %d of %d examples to %s=%d tokens; the longest had %d",
    long.size,
    len(lengths),
    name,
    most,
    lengths.max(),
  )
