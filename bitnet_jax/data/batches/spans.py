"""Span corruption (T5): an encoder-decoder writes spans that were taken out."""

import dataclasses

import numpy as np

from bitnet_jax.data.batches import packing
from bitnet_jax.data.batches.order import Batch, Draws
from bitnet_jax.data.batches.rows import start_id
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans:
  """Stretches of text with spans taken out; see `span_corruption`.

  Attributes:
    sequence: int32 [n], the documents, each followed by an end.
    length: tokens of the sequence an example takes.
    num_noise: how many of them are taken out.
    num_spans: in how many spans.
    sentinels: int32 [num_spans], one for each span.
    start_id: what the decoder reads first.
    eos_id: ends what is read and what is written.
  """

  sequence: np.ndarray
  length: int
  num_noise: int
  num_spans: int
  sentinels: np.ndarray
  start_id: int
  eos_id: int

  @property
  def input_len(self) -> int:
    """How many tokens the encoder reads."""
    return self.length - self.num_noise + self.num_spans + 1

  @property
  def target_len(self) -> int:
    """How many tokens the decoder writes."""
    return self.num_noise + self.num_spans + 1

  def __len__(self) -> int:
    return -(-len(self.sequence) // self.length)

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns "inputs", "input_mask", "tokens", "targets" and "mask"."""
    # The last example ends with the sequence, so that none needs padding; what
    # the one before has too is no target again.
    firsts = indices[:, None] * self.length
    last = len(self.sequence) - self.length
    places = np.minimum(firsts, last) + np.arange(self.length)
    tokens, fresh = self.sequence[places], places >= firsts
    noise, first, sentinel = self._spans(draws.words(self.length))
    rows, end = len(indices), np.full((len(indices), 1), self.eos_id, np.int32)
    inputs = np.where(noise, sentinel, tokens)[~noise | first]
    inputs = np.concatenate([inputs.reshape(rows, -1), end], axis=1)
    # Every token twice: a sentinel where a span starts, then the token.
    both = np.stack([sentinel, tokens], axis=2)
    kept = np.stack([first, noise], axis=2)
    targets = np.concatenate([both[kept].reshape(rows, -1), end], axis=1)
    counts = np.stack([fresh, fresh], axis=2)[kept].reshape(rows, -1)
    counts = np.concatenate([counts, np.ones_like(end)], axis=1)
    start = np.full((rows, 1), self.start_id, np.int32)
    return {
      "inputs": inputs,
      "input_mask": np.ones_like(inputs),
      "tokens": np.concatenate([start, targets[:, :-1]], axis=1),
      "targets": targets,
      "mask": counts.astype(np.float32),
    }

  def _spans(self, words):
    """Draws which tokens are taken out.

    Returns:
      Whether a token is, whether it is the first of its span, and the sentinel
      of its span, each [rows, length]; the sentinel of others is any.
    """
    if self.num_spans == 1:
      noise = _one_span(words, self.length, self.num_noise)
    else:
      noise = _spans(words, self.length, self.num_noise, self.num_spans)
    first = noise & ~np.pad(noise, ((0, 0), (1, 0)))[:, :-1]
    return noise, first, self.sentinels[np.cumsum(first, axis=1) - 1]


def _spans(words, length, num_noise, num_spans):
  """Draws at least two spans, every place as likely in one as any other.

  As if the row were bent into a circle, and cut open anywhere: at a border
  of spans, inside one that stays, or inside one that goes. The last would be
  a span more; there, one fewer is drawn.

  Args:
    words: random bits, [rows, length].
    length: of a row.
    num_noise: tokens that are taken out.
    num_spans: in how many spans.

  Returns:
    Whether a token is taken out, [rows, length].
  """
  num_kept = length - num_noise
  cut = (words[:, -1:] % np.uint64(length)).astype(np.int64)
  inside = cut < num_noise - num_spans  # of a span
  starts_noisy = cut < num_noise
  ends_noisy = inside | (~starts_noisy & (cut < num_noise + num_spans))
  stretches = num_spans + 1 - starts_noisy - ends_noisy
  kept = _partition(words[:, : num_kept - 1], stretches) + starts_noisy
  taken = _partition(words[:, num_kept - 1 : length - 2], num_spans)
  # Stretches that stay and spans take turns; one that stays comes first.
  turns = np.concatenate([2 * kept, 2 * taken + 1], axis=1)
  return np.argsort(turns, axis=1, kind="stable") >= num_kept


def _one_span(words, length, num_noise):
  """Draws one span; see `_spans`.

  One of as few spans as cover the row, side by side, from its first place to
  its last. Two of them, any neighbours, overlap where they need not fit.
  """
  count = -(-length // num_noise)
  which = (words[:, -1:] % np.uint64(count)).astype(np.int64)
  gap = (words[:, :1] % np.uint64(max(count - 1, 1))).astype(np.int64)
  over = count * num_noise - length
  starts = which * num_noise - np.where(which > gap, over, 0)
  places = np.arange(length)
  return (places >= starts) & (places < starts + num_noise)


def _partition(words, count):
  """Cuts items into parts, none empty, each way as likely.

  Args:
    words: random bits, [rows, items - 1], one a place to cut at.
    count: number of parts, [rows, 1] or the same for all rows.

  Returns:
    The part of each item, from 0, [rows, items].
  """
  rank = np.argsort(np.argsort(words, axis=1), axis=1)
  cuts = np.pad(rank < count - 1, ((0, 0), (1, 0)))
  return np.cumsum(cuts, axis=1)


def span_corruption(
  documents: Ragged,
  tokenizer: Tokenizer,
  *,
  input_len: int,
  noise_density: float = 0.15,
  mean_span: float = 3.0,
) -> Spans:
  """Takes spans out of texts: the pre-training of T5.

  Documents, each with an end of text after it, are cut into stretches. A
  fraction of the tokens of each is taken out in spans. The encoder reads what
  is left, with a sentinel for each span; the decoder writes each sentinel and
  the span it stands for. Both end with an end of text. All examples have the
  same lengths; the last stretch overlaps the one before, whose tokens are no
  targets again.

  Spans may stand anywhere in a stretch, so that every token is taken out about
  as often as any other. (Those of T5 end with the stretch: its first token
  always stays, and its last never does.)

  Args:
    documents: at least one, none empty.
    tokenizer: has an end of text, a start (see `start_id`) and a sentinel for
      each span.
    input_len: tokens that the encoder reads at most; stretches are as long as
      this allows.
    noise_density: fraction of the tokens that are taken out, in (0, 1).
    mean_span: mean length of a span, at least 1.

  Raises:
    ValueError: an argument is out of range, there are too few sentinels, or the
      documents have fewer tokens than an example.

  References:
    Raffel et al., T5, 2019, https://arxiv.org/abs/1910.10683, 3.1.4 and 3.3.4.
  """
  eos = tokenizer.need("eos", purpose="span corruption")
  packing.check_length("input_len", input_len, 4)
  if not 0 < noise_density < 1:
    raise ValueError(
      f"noise_density must be in (0, 1), it is {noise_density!r}"
    )
  if mean_span < 1:
    raise ValueError(f"mean_span must be at least 1, it is {mean_span!r}")
  length, num_noise, num_spans = _sizes(input_len, noise_density, mean_span)
  if num_spans > len(tokenizer.sentinels):
    raise ValueError(
      f"input_len={input_len} takes out {num_spans} spans, but the vocabulary"
      f" has {len(tokenizer.sentinels)} sentinels; load it with"
      f" num_sentinels={num_spans}"
    )
  sequence = np.insert(documents.values, documents.offsets[1:], eos)
  if len(sequence) < length:
    raise ValueError(
      f"the documents have {len(sequence)} tokens, but an example with"
      f" input_len={input_len} takes {length}"
    )
  return Spans(
    sequence=sequence,
    length=length,
    num_noise=num_noise,
    num_spans=num_spans,
    # One more, of no span, for what follows the last.
    sentinels=np.array([*tokenizer.sentinels[:num_spans], 0], np.int32),
    start_id=start_id(tokenizer),
    eos_id=eos,
  )


def _sizes(input_len, density, mean_span):
  """Returns the longest stretch, and its numbers of noise tokens and spans."""
  best = None
  length = 2
  while True:
    noise = min(max(round(length * density), 1), length - 1)
    spans = max(round(noise / mean_span), 1)
    spans = min(spans, noise, length - noise)
    if length - noise + spans + 1 > input_len:
      break
    best = length, noise, spans
    length += 1
  assert best is not None  # two tokens, one span: an input of three
  return best
