import numpy as np
import pytest

from bitnet_jax.data.batches import masking, order, packing
from bitnet_jax.data.text import tokenizers

TOKENIZER = tokenizers.load_tokenizer("bytes", texts=list, num_sentinels=100)


def ragged(count, longest):
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, longest, size=count)
  return tokenizers.Ragged.of(rng.integers(256, size=n) for n in lengths)


def whole(examples, **options):
  """All examples in one batch."""
  options = dict(batch_size=len(examples)) | options
  (batch,) = order.eval_batches(examples, **options)
  return batch


def masked_rows(**options):
  rows = packing.encoder_rows(ragged(300, 400), TOKENIZER, seq_len=128)
  return whole(rows), whole(masking.masked(rows, TOKENIZER, **options))


def test_chosen_tokens_are_masked_replaced_or_kept():
  before, after = masked_rows()
  np.testing.assert_array_equal(after["targets"], before["tokens"])
  np.testing.assert_array_equal(after["segment_ids"], before["segment_ids"])
  chosen = after["mask"] == 1
  np.testing.assert_array_equal(
    after["tokens"][~chosen], before["tokens"][~chosen]
  )
  special = np.isin(before["tokens"], TOKENIZER.special_ids)
  assert special.any()
  assert not (chosen & special).any()
  open_ = ~special & (before["segment_ids"] > 0)
  # 60,000 tokens: a standard error of 0.0015, and of 0.004 of the chosen.
  np.testing.assert_allclose(chosen[open_].mean(), 0.15, atol=0.006)
  tokens, targets = after["tokens"][chosen], after["targets"][chosen]
  is_mask = tokens == TOKENIZER.mask_id
  np.testing.assert_allclose(is_mask.mean(), 0.8, atol=0.016)
  kept = tokens == targets
  np.testing.assert_allclose(kept.mean(), 0.1 + 0.1 / 256, atol=0.013)
  others = tokens[~is_mask & ~kept]
  assert not np.isin(others, TOKENIZER.special_ids).any()
  assert len(np.unique(others)) > 200


def test_shares_are_options():
  before, after = masked_rows(rate=1.0, mask_share=0.0, random_share=1.0)
  chosen = after["mask"] == 1
  special = np.isin(before["tokens"], TOKENIZER.special_ids)
  np.testing.assert_array_equal(chosen, ~special & (before["segment_ids"] > 0))
  changed = (after["tokens"] != before["tokens"])[chosen].mean()
  np.testing.assert_allclose(changed, 255 / 256, atol=0.005)
  _, kept = masked_rows(rate=0.5, mask_share=0.0, random_share=0.0)
  np.testing.assert_array_equal(kept["tokens"], kept["targets"])
  np.testing.assert_allclose(kept["mask"].mean(), 0.5, atol=0.03)


def test_predictions_bound_what_is_chosen_of_a_row():
  before, all_of_them = masked_rows()
  _, after = masked_rows(predictions=16)
  rows, places = np.arange(len(before["tokens"]))[:, None], after["places"]
  assert places.shape == after["targets"].shape == after["mask"].shape
  assert places.shape[1] == 16
  np.testing.assert_array_equal(
    after["targets"], before["tokens"][rows, places]
  )
  chosen = np.zeros(before["tokens"].shape, bool)
  chosen[rows, places] = after["mask"] == 1
  # No place twice, and as many as there would be, up to the bound.
  assert all(len(set(row)) == 16 for row in places)
  free = all_of_them["mask"] == 1
  assert (free.sum(1) > 16).any()
  np.testing.assert_array_equal(chosen.sum(1), np.minimum(free.sum(1), 16))
  assert not (chosen & ~free).any()
  np.testing.assert_array_equal(
    after["tokens"],
    np.where(chosen, all_of_them["tokens"], before["tokens"]),
  )
  # Of too many neither the first nor the last ones stay, nor other shares.
  dropped = free & ~chosen
  assert dropped[:, :64].sum() > 10
  assert dropped[:, 64:].sum() > 10
  is_mask = after["tokens"][chosen] == TOKENIZER.mask_id
  np.testing.assert_allclose(is_mask.mean(), 0.8, atol=0.025)


def test_every_token_is_masked_as_often():
  rows = packing.encoder_rows(ragged(60, 100), TOKENIZER, seq_len=16)
  open_ = ~np.isin(whole(rows)["tokens"], TOKENIZER.special_ids)
  open_ &= whole(rows)["segment_ids"] > 0
  for predictions in (None, 4):
    examples = masking.masked(rows, TOKENIZER, predictions=predictions)
    count = np.zeros(open_.shape)
    for seed in range(300):
      batch = whole(examples, seed=seed)
      places = np.broadcast_to(np.arange(16), count.shape)
      places = batch.get("places", places)
      np.add.at(count, (np.arange(len(count))[:, None], places), batch["mask"])
    assert (count[~open_] == 0).all()
    by_place = (count * open_).sum(axis=0)[1:-1] / open_.sum(axis=0)[1:-1]
    np.testing.assert_allclose(by_place, by_place.mean(), rtol=0.05)
    # Of 300 times a token is masked 45 times: a standard error of 6.
    assert count[open_].min() > 15
    assert count[open_].max() < 80


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(rate=0.0), r"rate must be in \(0, 1\], it is 0.0"),
    (dict(rate=1.1), "rate must be in"),
    (dict(mask_share=0.8, random_share=0.3), "nor more than 1 together"),
    (dict(mask_share=-0.1), "must not be negative"),
    (dict(predictions=0), "predictions must be in 1..128, .* it is 0"),
    (dict(predictions=129), "predictions must be in 1..128, .* it is 129"),
  ],
)
def test_impossible_shares_are_errors(options, message):
  with pytest.raises(ValueError, match=message):
    masked_rows(**options)
