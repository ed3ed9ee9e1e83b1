"""Config keys are found by what users call them."""

import pytest

from bitnet_jax.train.config.nearest import suggest

KEYS = [
  "seed",
  "total_steps",
  "total_epochs",
  "data.batch_size",
  "data.eval_batch_size",
  "model.num_heads",
  "model.num_kv_heads",
  "optim.b1",
  "optim.learning_rate",
  "optim.second_learning_rate",
  "optim.warmup_steps",
  "profile.steps",
  "quant.recipe",
]


@pytest.mark.parametrize(
  ("key", "meant"),
  [
    ("optim.lr", "optim.learning_rate"),
    ("lr", "optim.learning_rate"),
    ("learning_rate", "optim.learning_rate"),
    ("optim.learning_rat", "optim.learning_rate"),
    ("bs", "data.batch_size"),
    ("batch_size", "data.batch_size"),
    ("epochs", "total_epochs"),
    ("steps", "total_steps"),
    ("optim.steps", "optim.warmup_steps"),
    ("model.seed", "seed"),
    ("recipe", "quant.recipe"),
    ("quant.recip", "quant.recipe"),
    ("learnign_rate", "optim.learning_rate"),
  ],
)
def test_key_is_found_at_any_depth(key, meant):
  assert suggest(key, KEYS) == f" (did you mean '{meant}'?)"


def test_several_may_be_meant():
  assert suggest("heads", KEYS) == (
    " (did you mean 'model.num_heads' or 'model.num_kv_heads'?)"
  )


def test_prefix_makes_it_a_flag():
  assert "'--config.optim.learning_rate'" in suggest(
    "lr", KEYS, prefix="--config."
  )


@pytest.mark.parametrize("key", ["foo", "x", "model.d_model", ""])
def test_nothing_is_suggested_where_nothing_is_close(key):
  assert suggest(key, KEYS) == ""
