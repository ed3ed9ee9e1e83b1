"""Greedy and beam search with an encoder-decoder."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.inference import beam_search
from bitnet_jax.inference.sampling import NO_TOKEN
from tests.inference.writers import SEARCH, VOCAB, search, spoiled, translator


@functools.partial(jax.jit, static_argnames="model")
def logits_of(model, variables, inputs, tokens, mask):
  return model.apply(variables, inputs, tokens, input_mask=mask)


def log_probabilities(outputs):
  """Of outputs [b, t]; nothing counts behind the first stop."""
  model, variables, inputs, mask = translator()
  starts = jnp.pad(outputs[:, :-1], ((0, 0), (1, 0)))
  logits = logits_of(model, variables, inputs, starts, mask)
  steps = np.take_along_axis(
    np.asarray(jax.nn.log_softmax(logits)), outputs[..., None], axis=-1
  )[..., 0]
  ended = np.cumsum(outputs == 1, axis=-1) - (outputs == 1)
  return (steps * (ended == 0)).sum(-1)


@pytest.mark.slow
def test_one_beam_is_greedy_search():
  model, variables, inputs, mask = translator()
  sequence = np.zeros((3, 1), int)
  for _ in range(4):
    logits = logits_of(model, variables, inputs, sequence, mask)
    following = np.asarray(jnp.argmax(logits[:, -1:], axis=-1))
    sequence = np.concatenate([sequence, following], axis=1)
  expected = sequence[:, 1:]
  ended = np.cumsum(expected == 1, axis=-1) > 0
  np.testing.assert_array_equal(search(), np.where(ended, 1, expected))


@pytest.mark.slow
def test_enough_beams_find_the_likeliest_output():
  every = np.asarray(list(itertools.product(range(VOCAB), repeat=2)))
  best = np.max([log_probabilities(np.tile(row, (3, 1))) for row in every], 0)
  found = search(max_length=2, num_beams=VOCAB, length_penalty=0.0)
  np.testing.assert_allclose(log_probabilities(found), best, atol=1e-5)


@pytest.mark.slow
def test_more_beams_are_no_less_likely():
  one, four = (
    search(length_penalty=0.0),
    search(num_beams=4, length_penalty=0.0),
  )
  assert np.all(log_probabilities(four) >= log_probabilities(one) - 1e-5)


@pytest.mark.parametrize(
  "num_beams", [pytest.param(1, marks=pytest.mark.slow), 3]
)
def test_banned_tokens_are_in_no_output(num_beams):
  banned = [0, 4, 6]
  free = search(num_beams=num_beams)
  assert np.isin(free, banned).any()
  assert not np.isin(search(num_beams=num_beams, banned=banned), banned).any()


def test_inputs_may_be_arrays_of_numpy():
  _, _, inputs, mask = translator()
  found = search(inputs=np.asarray(inputs, np.int64), input_mask=mask > 0)
  np.testing.assert_array_equal(found, search())


@pytest.mark.slow
def test_outputs_that_cannot_be_chosen_are_none_within_jit():
  model, variables, inputs, mask = translator()
  jitted = jax.jit(lambda v: beam_search(model, v, inputs, mask, **SEARCH))
  np.testing.assert_array_equal(jitted(variables), search())
  assert np.all(np.asarray(jitted(spoiled(variables, np.nan))) == NO_TOKEN)


ONES = np.ones((3, 5), int)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"inputs": ONES[0]}, r"inputs has the shape \[5\]; it must be \[b, s\]"),
    ({"inputs": ONES[:, :0]}, r"inputs has the shape \[3, 0\]"),
    ({"inputs": ONES * 0.5}, "inputs holds float64; ids are integers"),
    ({"inputs": ONES * 7}, "inputs holds the id 7"),
    ({"input_mask": ONES[:, 1:]}, r"input_mask .*\[3, 4\], not .* \[3, 5\]"),
    ({"start_id": 7}, "start_id holds the id 7"),
    ({"stop_id": -1}, "stop_id holds the id -1"),
    ({"stop_id": (0, 1)}, r"stop_id is \(0, 1\); it must be one id"),
    ({"length_penalty": np.nan}, "length_penalty is nan"),
    (
      {"length_penalty": 1e3},
      "length_penalty is 1000.0; a length of 4 to this",
    ),
    ({"num_beams": 5, "banned": [4, 5, 6]}, "is 5, more than the 4 tokens"),
    ({"num_beams": 0}, "num_beams is 0"),
    ({"max_length": 0}, "max_length is 0"),
    ({"num_beams": 8}, "num_beams is 8, more than the 7 tokens"),
    ({"max_length": 13}, "13 tokens, more than model.max_length, 12"),
  ],
)
def test_bad_search_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    search(**options)
