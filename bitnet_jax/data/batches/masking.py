"""Batches for masked language models (BERT)."""

import dataclasses

import numpy as np

from bitnet_jax.data.batches import packing
from bitnet_jax.data.batches.order import Batch, Draws, uniform
from bitnet_jax.data.text.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masked:
  """Rows with masked tokens, which the model predicts; see `masked`.

  Attributes:
    rows: the rows to mask.
    mask_id: id of the mask token.
    special: bool [vocab_size], tokens that are never masked.
    ordinary: int32 [m], tokens that may replace a masked one.
    rate: fraction of the tokens that are masked.
    mask_share: fraction of the masked tokens that become `mask_id`.
    random_share: fraction of the masked tokens that become a random token.
    predictions: most masked tokens in a row; `None` for any number.
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

    "targets" are the original tokens, and "mask" is 1 where a token is masked.
    With `predictions`, both hold only the tokens at "places", int32 [rows,
    predictions]: the masked ones in order, then any others.
    """
    batch = self.rows.batch(indices, draws)
    tokens = batch["tokens"]
    # Two words a token: whether and how it is masked; and a random token.
    words = draws.words(2 * self.rows.seq_len)
    chance, other = np.split(words, 2, axis=1)
    chance = uniform(chance)
    eligible = (batch["segment_ids"] > 0) & ~self.special[tokens]
    chosen = eligible & (chance < self.rate)
    if self.predictions is not None:
      # If there are too many, those with the smallest random words stay.
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
  """Masks tokens of rows as in BERT.

  Each token that is not special is masked with probability `rate`: it becomes
  the mask token or a random ordinary token, or stays as it is.

  Args:
    rows: see `packing.encoder_rows`.
    tokenizer: vocabulary with a mask token.
    rate: in (0, 1].
    mask_share: fraction of the masked tokens that become the mask token.
    random_share: fraction that become a random token; together at most 1.
    predictions: most masked tokens in a row, chosen at random if there are
      more; the model then computes only this many logits per row. `None` for
      any number.

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
