"""Masked language models (BERT): rows of which some tokens are masked."""

import dataclasses

import numpy as np

from bitnet_jax.data.batches import packing
from bitnet_jax.data.batches.order import Batch, Draws, uniform
from bitnet_jax.data.text.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked:
  """Rows with masked tokens, the targets of the model; see `masked`.

  Attributes:
    rows: what is masked.
    mask_id: what most of the chosen tokens become.
    special: bool [vocab_size], tokens that are never chosen.
    ordinary: int32 [m], tokens that a chosen one can become.
    rate: fraction of the tokens that are chosen.
    mask_share: fraction of the chosen that become `mask_id`.
    random_share: fraction of the chosen that become any token.
    predictions: how many tokens of a row are chosen at most; `None` for any
      number.
  """

  rows: packing.Packed
  mask_id: int
  special: np.ndarray
  ordinary: np.ndarray
  rate: float
  mask_share: float
  random_share: float
  predictions: int | None

  def __len__(self) -> int:
    return len(self.rows)

  def batch(self, indices: np.ndarray, draws: Draws) -> Batch:
    """Returns the batch of the rows with tokens masked.

    "targets" are the tokens as they were, and "mask" is 1 where one was chosen.
    With a number of `predictions` both are of the tokens at "places" only,
    int32 [rows, predictions]: the chosen ones in order, then any others.
    """
    batch = self.rows.batch(indices, draws)
    tokens = batch["tokens"]
    # Two words a token: whether it is chosen and for what; and another token.
    words = draws.words(2 * self.rows.seq_len)
    chance, other = np.split(words, 2, axis=1)
    chance = uniform(chance)
    eligible = (batch["segment_ids"] > 0) & ~self.special[tokens]
    chosen = eligible & (chance < self.rate)
    if self.predictions is not None:
      # Of too many the ones with the smallest words stay, which are any.
      order = np.argsort(np.where(chosen, other, np.uint64(2**64 - 1)), axis=1)
      rank = np.argsort(order, axis=1)
      chosen &= rank < self.predictions
    masked = chance < self.rate * self.mask_share
    kept = chance >= self.rate * (self.mask_share + self.random_share)
    others = self.ordinary[other % np.uint64(len(self.ordinary))]
    replaced = np.where(masked, np.int32(self.mask_id), others)
    targets: Batch = {"targets": tokens, "mask": chosen.astype(np.float32)}
    if self.predictions is not None:
      order = np.argsort(~chosen, axis=1, kind="stable")
      places = order[:, : self.predictions]
      targets = {
        name: np.take_along_axis(array, places, axis=1)
        for name, array in targets.items()
      }
      targets["places"] = places.astype(np.int32)
    return (
      batch | {"tokens": np.where(chosen & ~kept, replaced, tokens)} | targets
    )


def masked(
  rows: packing.Packed,
  tokenizer: Tokenizer,
  *,
  rate: float = 0.15,
  mask_share: float = 0.8,
  random_share: float = 0.1,
  predictions: int | None = None,
) -> Masked:
  """Masks tokens of rows, as the masked language model of BERT does.

  Each token but the special ones is chosen with probability `rate`. A chosen
  one becomes the mask, or any token that is not special, or stays.

  Args:
    rows: see `packing.encoder_rows`.
    tokenizer: has a token mask.
    rate: in (0, 1].
    mask_share: fraction of the chosen that become the mask.
    random_share: fraction of the chosen that become any token; together at most
      1.
    predictions: how many tokens of a row are chosen at most, of more a random
      part; a model then makes logits of as many only. `None` for any number.

  Raises:
    ValueError: an argument is out of range.

  References:
    Devlin et al., BERT, 2018, https://arxiv.org/abs/1810.04805, 3.1.
  """
  mask_id = tokenizer.need("mask", purpose="a masked language model")
  if not 0 < rate <= 1:
    raise ValueError(f"rate must be in (0, 1], it is {rate!r}")
  shares = (mask_share, random_share)
  if min(shares) < 0 or sum(shares) > 1 + 1e-9:
    raise ValueError(
      "mask_share and random_share must not be negative, nor more than 1"
      f" together; they are {mask_share!r} and {random_share!r}"
    )
  if predictions is not None and not 1 <= predictions <= rows.seq_len:
    raise ValueError(
      f"predictions must be in 1..{rows.seq_len}, the length of a row; it is"
      f" {predictions!r}"
    )
  special = np.zeros(tokenizer.vocab_size, bool)
  special[tokenizer.special_ids] = True
  return Masked(
    rows=rows,
    mask_id=mask_id,
    special=special,
    ordinary=np.flatnonzero(~special).astype(np.int32),
    rate=rate,
    mask_share=mask_share,
    random_share=random_share,
    predictions=predictions,
  )
