"""Batches for span corruption (T5), for encoder-decoders."""

import dataclasses

import numpy as np

from bitnet_jax.data.batches import packing
from bitnet_jax.data.batches.order import Batch, Draws
from bitnet_jax.data.batches.rows import start_id
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans:
  """Chunks of text with masked spans; see `span_corruption`.

  Attributes:
    sequence: int32 [n], the documents, each followed by an end token.
    length: tokens of the sequence in an example.
    num_noise: number of masked tokens in an example.
    num_spans: number of masked spans.
    sentinels: int32 [num_spans], one for each span.
    start_id: first token that the decoder reads.
    eos_id: end token of inputs and targets.
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
    """The number of tokens of the encoder."""
    return self.length - self.num_noise + self.num_spans + 1

  @property
  def target_len(self) -> int:
    """The number of tokens of the decoder."""
    return self.num_noise + self.num_spans + 1

  def __len__(self) -> int:
    return -(-len(self.sequence) // self.length)

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns "inputs", "input_mask", "tokens", "targets" and "mask"."""
    # The last example ends with the sequence, so that none needs padding; its
    # overlap with the previous example has no weight.
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
    """Draws which tokens are masked.

    Returns:
      Whether a token is masked, whether it is the first of its span, and the
      sentinel of its span (arbitrary for others), each [rows, length].
    """
    if self.num_spans == 1:
      noise = _one_span(words, self.length, self.num_noise)
    else:
      noise = _spans(words, self.length, self.num_noise, self.num_spans)
    first = noise & ~np.pad(noise, ((0, 0), (1, 0)))[:, :-1]
    return noise, first, self.sentinels[np.cumsum(first, axis=1) - 1]


def _spans(words, length, num_noise, num_spans):
  """Draws at least two spans that mask every position with equal probability.

  The spans are drawn on a circle, which is then cut open at a random place. A
  cut inside a masked span makes two spans of it, so in that case one fewer is
  drawn.

  Args:
    words: random bits, [rows, length].
    length: tokens in a row.
    num_noise: number of masked tokens.
    num_spans: number of masked spans.

  Returns:
    Whether a token is masked, [rows, length].
  """
  num_kept = length - num_noise
  cut = (words[:, -1:] % np.uint64(length)).astype(np.int64)
  inside = cut < num_noise - num_spans  # of a span
  starts_noisy = cut < num_noise
  ends_noisy = inside | (~starts_noisy & (cut < num_noise + num_spans))
  stretches = num_spans + 1 - starts_noisy - ends_noisy
  kept = _partition(words[:, : num_kept - 1], stretches) + starts_noisy
  taken = _partition(words[:, num_kept - 1 : length - 2], num_spans)
  # Unmasked and masked spans alternate; an unmasked one comes first.
  turns = np.concatenate([2 * kept, 2 * taken + 1], axis=1)
  return np.argsort(turns, axis=1, kind="stable") >= num_kept


def _one_span(words, length, num_noise):
  """Draws one span; see `_spans`.

  The fewest spans that cover the row lie side by side, from its first place to
  its last, and one of them is drawn. If they do not fit exactly, two neighbours
  overlap.
  """
  count = -(-length // num_noise)
  which = (words[:, -1:] % np.uint64(count)).astype(np.int64)
  gap = (words[:, :1] % np.uint64(max(count - 1, 1))).astype(np.int64)
  over = count * num_noise - length
  starts = which * num_noise - np.where(which > gap, over, 0)
  places = np.arange(length)
  return (places >= starts) & (places < starts + num_noise)


def _partition(words, count):
  """Cuts items into non-empty parts, every partition equally likely.

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
  """Masks spans of texts, as in the pre-training of T5.

  Documents, each followed by an end token, are cut into chunks, and a fraction
  of the tokens of each chunk is masked in spans. The encoder reads the rest,
  with a sentinel in place of each span. The decoder predicts each sentinel and
  its span. Both end with an end token. All examples have the same lengths; the
  last chunk overlaps the previous one, without repeating its targets.

  Spans may lie anywhere in a chunk, so that every position is masked about
  equally often. (In T5 a chunk always ends with a span: its first token is
  never masked, its last always.)

  Args:
    documents: at least one, none empty.
    tokenizer: vocabulary with an end token, a start token (see `start_id`) and
      a sentinel for each span.
    input_len: most tokens of the encoder; chunks are as long as this allows.
    noise_density: fraction of the tokens that are masked, in (0, 1).
    mean_span: mean length of a span, at least 1.

  Raises:
    ValueError: an argument is out of range, there are too few sentinels, or the
      documents have fewer tokens than an example.

  References:
    Raffel et al., T5, 2019, https://arxiv.org/abs/1910.10683, 3.1.4 and 3.3.4.
  """
  eos = tokenizer.need("eos", purpose="span corruption")
  length, num_noise, num_spans = _sizes(input_len, noise_density, mean_span)
  if num_spans > len(tokenizer.sentinels):
    raise ValueError(
      f"input_len={input_len} masks {num_spans} spans, but the vocabulary"
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
  """Returns the longest chunk, and its numbers of masked tokens and spans."""
  packing.check_length("input_len", input_len, 4)
  if not 0 < density < 1:
    raise ValueError(f"noise_density must be in (0, 1), it is {density!r}")
  if mean_span < 1:
    raise ValueError(f"mean_span must be at least 1, it is {mean_span!r}")
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
