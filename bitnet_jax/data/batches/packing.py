"""Rows of tokens from documents: fixed-length chunks, or packed documents.

`order` defines the names in a batch.
"""

import dataclasses

import numpy as np
from absl import logging

from bitnet_jax.data.batches.order import Batch, Draws
from bitnet_jax.data.text.tokenizers import Ragged, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunks:
  """Windows of one long sequence; see `chunks`.

  Attributes:
    sequence: int32 [n], n >= 2.
    seq_len: tokens in a window.
    stride: distance between the starts of windows; targets of the previous
      window have no weight.
  """

  sequence: np.ndarray
  seq_len: int
  stride: int

  def __len__(self) -> int:
    targets = len(self.sequence) - 1
    return 1 + max(-(-(targets - self.seq_len) // self.stride), 0)

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns "tokens", "targets" and "mask", each [rows, seq_len]."""
    del draws
    starts = indices[:, None] * self.stride
    last = len(self.sequence) - 1
    places = starts + np.arange(self.seq_len + 1)
    window = self.sequence[np.minimum(places, last)]
    # All targets of the first window are new; of others the last `stride`.
    old = np.where(starts > 0, self.seq_len - self.stride, 0)
    fresh = np.arange(self.seq_len) >= old
    mask = fresh & (places[:, 1:] <= last)
    return {
      "tokens": window[:, :-1],
      "targets": window[:, 1:],
      "mask": mask.astype(np.float32),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
  """Rows of several segments each; see `packed` and `encoder_rows`.

  Attributes:
    sequence: int32 [n], all documents, one after the other.
    starts: int64 [segments], where each segment starts in the sequence; the
      segments of the first row come first.
    lengths: int64 [segments], of each segment.
    places: int64 [segments], where each segment starts in its row.
    offsets: int64 [rows + 1], the first segment of each row; the last is their
      number.
    seq_len: tokens in a row.
    pad_id: id of padding.
  """

  sequence: np.ndarray
  starts: np.ndarray
  lengths: np.ndarray
  places: np.ndarray
  offsets: np.ndarray
  seq_len: int
  pad_id: int

  def __len__(self) -> int:
    return len(self.offsets) - 1

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns "tokens", "targets", "segment_ids", "positions" and "mask".

    Each is [rows, seq_len]. A target is the token that follows in the sequence.
    """
    del draws
    first, counts = self.offsets[indices], np.diff(self.offsets)[indices]
    row, number = _ranges(counts)  # of each segment
    segment = first[row] + number
    # Of each token: its segment, its position there, its place in the batch.
    of, position = _ranges(self.lengths[segment])
    source = self.starts[segment][of] + position
    place = (row * self.seq_len + self.places[segment])[of] + position

    def spread(values, padding=0, dtype=np.int32):
      found = np.full(len(indices) * self.seq_len, padding, dtype)
      found[place] = values
      return found.reshape(-1, self.seq_len)

    follow = np.minimum(source + 1, len(self.sequence) - 1)
    return {
      "tokens": spread(self.sequence[source], self.pad_id),
      "targets": spread(self.sequence[follow], self.pad_id),
      "segment_ids": spread(number[of] + 1),
      "positions": spread(position),
      "mask": spread(1, dtype=np.float32),
    }


def _ranges(counts):
  """Returns the owner and the number in its range of each of sum(counts)."""
  owner = np.repeat(np.arange(len(counts)), counts)
  number = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
  return owner, number


def chunks(
  documents: Ragged,
  tokenizer: Tokenizer,
  *,
  seq_len: int,
  stride: int | None = None,
) -> Chunks:
  """Cuts the concatenated documents into chunks for a causal model.

  Each document follows an end-of-text token, and the last ends with one:
  `eos a a eos b b b eos`. Chunks of `seq_len + 1` overlap by a token, so that
  every token of every document, and the end of each, is a target once. The last
  chunk is padded, and padding has no weight.

  Args:
    documents: at least one, none empty.
    tokenizer: vocabulary with an end-of-text token.
    seq_len: tokens in a chunk.
    stride: distance between the starts of chunks, from 1 to `seq_len`. A small
      stride evaluates with more context; repeated targets have no weight.

  Raises:
    ValueError: an argument is out of range, or there is no document.
  """
  eos = tokenizer.need("eos", purpose="a causal language model")
  stride = seq_len if stride is None else stride
  check_length("seq_len", seq_len, 1)
  if not 1 <= stride <= seq_len:
    raise ValueError(f"stride must be in 1..{seq_len}, it is {stride}")
  return Chunks(
    sequence=_joined(documents, eos), seq_len=seq_len, stride=stride
  )


def packed(documents: Ragged, tokenizer: Tokenizer, *, seq_len: int) -> Packed:
  """Packs whole documents into rows for a causal model.

  For a document the model reads `eos a b c` and predicts `a b c eos`. A
  document goes to the open row with the least room that is enough. A document
  longer than a row is cut into segments. Each segment starts with the last
  target of the previous one, so that every token is a target once. The number
  of segments is logged.

  Args:
    documents: at least one, none empty.
    tokenizer: vocabulary with an end-of-text token.
    seq_len: tokens in a row.

  Raises:
    ValueError: an argument is out of range, or there is no document.
  """
  eos = tokenizer.need("eos", purpose="a causal language model")
  check_length("seq_len", seq_len, 1)
  sequence = _joined(documents, eos)
  lengths = documents.lengths + 1
  starts, lengths = _segments(
    np.cumsum(lengths) - lengths, lengths, seq_len, "tokens with its end"
  )
  return _pack(sequence, starts, lengths, seq_len, tokenizer)


def encoder_rows(
  documents: Ragged,
  tokenizer: Tokenizer,
  *,
  seq_len: int,
  joined: bool = True,
) -> Packed:
  """Makes rows `cls a b c sep` for an encoder.

  Args:
    documents: at least one, none empty.
    tokenizer: vocabulary with the tokens cls and sep.
    seq_len: tokens in a row.
    joined: whether documents, with a token sep between them, form one text that
      is cut into rows. Otherwise rows hold as many whole documents as fit,
      which do not attend to each other (see `packed`). A document that is too
      long is cut, which is logged.

  Raises:
    ValueError: an argument is out of range, or there is no document.
  """
  cls = tokenizer.need("cls", purpose="an encoder")
  sep = tokenizer.need("sep", purpose="an encoder")
  check_length("seq_len", seq_len, 3)
  if joined:
    values = _joined(documents, sep)[1:-1]
    documents = Ragged.of([values])
  lengths = documents.lengths
  starts, lengths = _segments(
    np.cumsum(lengths) - lengths,
    lengths,
    seq_len - 2,
    None if joined else "tokens",
  )
  # Put `cls` before and `sep` after each segment.
  ends = starts + lengths
  borders = np.stack([starts, ends], axis=1).ravel()
  sequence = np.insert(
    documents.values, borders, np.tile([cls, sep], len(ends))
  )
  starts = starts + 2 * np.arange(len(starts))
  return _pack(sequence, starts, lengths + 2, seq_len, tokenizer)


def check_length(name: str, length: int, least: int) -> None:
  """Raises a ValueError if rows are too short."""
  if length < least:
    raise ValueError(f"{name} must be at least {least}, it is {length}")


def _joined(documents, separator):
  """Returns documents with a token before each and after the last."""
  if not len(documents):
    raise ValueError("there are no documents to make examples from")
  return np.insert(documents.values, documents.offsets, separator)


def _segments(starts, lengths, most, unit):
  """Cuts documents longer than `most`; returns starts and lengths."""
  counts = -(-lengths // most)
  owner, number = _ranges(counts)
  cut = np.flatnonzero(counts > 1)
  if unit and cut.size:
    logging.warning(
      "Cut %d of %d documents, which have more than %d %s, into %d segments",
      cut.size,
      len(lengths),
      most,
      unit,
      counts[cut].sum(),
    )
  past = number * most
  return starts[owner] + past, np.minimum(lengths[owner] - past, most)


def _pack(sequence, starts, lengths, seq_len, tokenizer):
  """Puts segments into rows."""
  rows, places = _best_fit(lengths.tolist(), seq_len)
  order = np.lexsort((places, rows))
  counts = np.bincount(rows)
  return Packed(
    sequence=sequence,
    starts=starts[order],
    lengths=lengths[order],
    places=places[order],
    offsets=np.concatenate([[0], np.cumsum(counts)]),
    seq_len=seq_len,
    pad_id=tokenizer.pad_id or 0,
  )


def _best_fit(lengths, capacity):
  """Places each length into the row with the least room that is enough.

  Returns:
    The row of each length and its place in the row, int64 [n].
  """
  # Open rows, by their free room.
  by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
  rooms = 0  # bit r is set if a row has room r
  rows, places, count = [], [], 0
  for length in lengths:
    fitting = rooms >> length
    if fitting:
      room = length + (fitting & -fitting).bit_length() - 1
      row = by_room[room].pop()
      if not by_room[room]:
        rooms ^= 1 << room
    else:
      row, room, count = count, capacity, count + 1
    rows.append(row)
    places.append(capacity - room)
    if room > length:
      by_room[room - length].append(row)
      rooms |= 1 << (room - length)
  return np.array(rows, np.int64), np.array(places, np.int64)
