"""Writing: sampling, generation with a cache, beam search."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.inference import Sampling, beam_search, generate
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.models.encoder_decoder import (
  EncoderDecoder,
  EncoderDecoderConfig,
)
from tests.models.transformers_test import SIZES

VOCAB = 7
LOGITS = jnp.log(jnp.asarray([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]]))


def allowed(**options):
  restricted = Sampling(temperature=1.0, **options).restrict(LOGITS)
  return [np.flatnonzero(row > -np.inf).tolist() for row in restricted]


def test_only_the_likeliest_tokens_are_kept():
  assert allowed() == [[0, 1, 2, 3], [0, 1, 2, 3]]
  assert allowed(top_k=2)[0] == [1, 3]
  assert allowed(top_k=9) == allowed()
  assert allowed(top_p=0.6) == [[1, 3], [0]]
  assert allowed(top_p=0.71)[0] == [1, 2, 3]
  assert allowed(top_p=1e-6) == [[1], [0]]
  assert allowed(top_k=3, top_p=0.75)[0] == [1, 3]  # Of what top_k left.


def test_temperature_scales_the_logits():
  keys = jax.random.split(jax.random.key(0), 4000)

  def share(temperature):
    sampling = Sampling(temperature=temperature)
    tokens = jax.vmap(lambda key: sampling(LOGITS[:1], key))(keys)
    return float(jnp.mean(tokens == 1))

  assert share(0.0) == 1.0
  assert share(1.0) == pytest.approx(0.4, abs=0.03)
  squares = np.square([0.1, 0.4, 0.2, 0.3])
  assert share(0.5) == pytest.approx(0.16 / squares.sum(), abs=0.03)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"temperature": -1.0}, "temperature is -1.0"),
    ({"top_k": 0}, "top_k is 0"),
    ({"top_p": 0.0}, "top_p is 0.0"),
    ({"top_p": 1.5}, "top_p is 1.5"),
  ],
)
def test_bad_sampling_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    Sampling(**options)


@functools.cache
def decoder(recipe="b158"):
  more = {"tie_embeddings": False, "vocab_size": VOCAB}
  model = Decoder(DecoderConfig(**(SIZES | more)), recipe)
  init = jax.jit(model.init)
  return model, nn.unbox(init(jax.random.key(3), jnp.zeros((1, 4), int)))


PROMPTS = [[1, 2, 3], [4], [5, 6, 1, 2, 0]]


def greedy(model, variables, prompt, n):
  """Always the likeliest token of the whole sequence, without a cache."""
  apply = jax.jit(model.apply)
  sequence = list(prompt)
  for _ in range(n):
    padded = sequence + [0] * (12 - len(sequence))
    logits = apply(variables, jnp.asarray([padded]))
    sequence.append(int(jnp.argmax(logits[0, len(sequence) - 1])))
  return sequence[len(prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize(
  "recipe", [pytest.param("float", marks=pytest.mark.slow), "b158"]
)
def test_greedy_generation_is_the_likeliest_token_each_time(recipe):
  model, variables = decoder(recipe)
  written = generate(model, variables, PROMPTS, max_new_tokens=5)
  assert written == [greedy(model, variables, p, 5) for p in PROMPTS]


def test_text_ends_before_the_stop_token():
  model, variables = decoder()
  full = generate(model, variables, PROMPTS, max_new_tokens=5)
  stop = full[0][2]
  found = generate(model, variables, PROMPTS, max_new_tokens=5, stop_id=stop)
  ends = [row.index(stop) if stop in row else 5 for row in full]
  assert found == [row[:end] for row, end in zip(full, ends, strict=True)]


def test_sampling_depends_on_the_seed_alone():
  model, variables = decoder()
  sampling = Sampling(temperature=5.0)

  def run(seed):
    return generate(
      model,
      variables,
      PROMPTS,
      max_new_tokens=6,
      sampling=sampling,
      seed=seed,
    )

  assert run(0) == run(0)
  assert run(0) != run(1)


@pytest.mark.parametrize(
  ("prompts", "n", "message"),
  [
    ([], 1, "there are no prompts"),
    ([[1], []], 1, "prompt 1 is empty"),
    ([[1, 7]], 1, r"prompt 0 holds the id 7; ids must be in 0..6"),
    ([[-1]], 1, "prompt 0 holds the id -1"),
    ([[1]], 0, "max_new_tokens is 0"),
    ([[1], [1] * 9], 4, r"longest prompt has 9 tokens; .* 4 .*max_length, 12"),
  ],
)
def test_bad_prompt_is_named(prompts, n, message):
  with pytest.raises(ValueError, match=message):
    generate(*decoder(), prompts, max_new_tokens=n)


@functools.cache
def translator():
  more = {"num_decoder_layers": 1, "tie_embeddings": False, "vocab_size": VOCAB}
  model = EncoderDecoder(EncoderDecoderConfig(**(SIZES | more)), "float")
  inputs = jnp.asarray(np.random.default_rng(0).integers(2, VOCAB, (3, 5)))
  variables = jax.jit(model.init)(jax.random.key(1), inputs, inputs)
  mask = jnp.asarray([[1] * 5, [1] * 3 + [0] * 2, [1] * 4 + [0]])
  return model, nn.unbox(variables), inputs, mask


def search(**options):
  model, variables, inputs, mask = translator()
  defaults = {"start_id": 0, "stop_id": 1, "max_length": 4}
  return np.asarray(
    beam_search(model, variables, inputs, mask, **(defaults | options))
  )


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
  ("options", "message"),
  [
    ({"num_beams": 0}, "num_beams is 0"),
    ({"max_length": 0}, "max_length is 0"),
    ({"num_beams": 8}, "num_beams is 8, more than the 7 tokens"),
    ({"max_length": 13}, "13 tokens, more than model.max_length, 12"),
  ],
)
def test_bad_search_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    search(**options)
