"""Choosing tokens from logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.inference import Sampling
from bitnet_jax.inference.sampling import NO_TOKEN

LOGITS = jnp.log(jnp.asarray([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.1, 0.1]]))


def allowed(logits=LOGITS, **options):
  restricted = Sampling(temperature=1.0, **options).restrict(logits)
  return [np.flatnonzero(row > -np.inf).tolist() for row in restricted]


def test_only_the_likeliest_tokens_are_kept():
  assert allowed() == [[0, 1, 2, 3], [0, 1, 2, 3]]
  assert allowed(top_k=2)[0] == [1, 3]
  assert allowed(top_k=9) == allowed()
  assert allowed(top_p=0.6) == [[1, 3], [0]]
  assert allowed(top_p=0.71)[0] == [1, 2, 3]
  assert allowed(top_p=1e-6) == [[1], [0]]
  assert allowed(top_k=3, top_p=0.75)[0] == [1, 3]  # Of what top_k left.


def test_equally_likely_tokens_are_cut_by_their_ids():
  equal = jnp.zeros((1, 8))
  assert allowed(equal, top_k=1) == [[0]]
  assert allowed(equal, top_k=3) == [[0, 1, 2]]
  assert allowed(equal, top_p=0.5) == [[0, 1, 2, 3]]
  assert allowed(equal, top_p=1.0) == [[*range(8)]]
  assert allowed(jnp.zeros((1, 8), jnp.bfloat16), top_p=0.25) == [[0, 1]]
  ties = jnp.asarray([[1.0, 3.0, 2.0, 3.0, 3.0]])
  assert allowed(ties, top_k=2) == [[1, 3]]
  assert allowed(ties, top_k=4) == [[1, 2, 3, 4]]


def test_no_token_is_lost_where_all_may_be_drawn():
  # All but the first share 1e-7, less than float32 tells from 1.
  logits = jnp.log(jnp.asarray([[1.0] + [1e-10] * 1000]))
  assert len(allowed(logits, top_p=1.0)[0]) == 1001
  assert allowed(logits, top_p=1e-46) == [[0]]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-30])
def test_cold_sampling_takes_the_likeliest_token(temperature, dtype):
  logits = jnp.asarray([[-9.0, 2.5, -jnp.inf, 2.0], [3e4, 1.0, -3e4, 0.0]])
  sampling = Sampling(temperature=temperature)
  keys = jax.random.split(jax.random.key(0), 20)
  tokens = jax.vmap(lambda k: sampling(logits.astype(dtype), k))(keys)
  assert tokens.tolist() == [[1, 0]] * 20


def test_hot_sampling_draws_all_that_is_possible():
  logits = jnp.asarray([[50.0, -jnp.inf, 0.0, -50.0]])
  keys = jax.random.split(jax.random.key(0), 600)
  for temperature in (1e6, 1e38, 1e300):
    sampling = Sampling(temperature=temperature)
    tokens = jax.vmap(lambda key, s=sampling: s(logits, key))(keys)[:, 0]
    shares = np.bincount(tokens, minlength=4) / len(keys)
    assert shares == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.08)


@pytest.mark.parametrize("jit", [jax.jit, lambda function: function])
@pytest.mark.parametrize(
  "options",
  [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3, "top_p": 0.9}],
)
def test_logits_that_tell_nothing_choose_no_token(options, jit):
  logits = np.random.default_rng(0).normal(size=(5, 8192))
  logits[1, 5000] = np.nan
  logits[2, 8191] = np.inf
  logits[3] = -np.inf
  logits[4, :4000] = -np.inf
  sampling = jit(Sampling(**options))
  for dtype in ("float32", "float16", "bfloat16"):
    tokens = sampling(jnp.asarray(logits, dtype), jax.random.key(0)).tolist()
    assert tokens[1:4] == [NO_TOKEN] * 3
    assert tokens[0] >= 0
    assert tokens[4] >= 4000


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
    ({"temperature": np.nan}, "temperature is nan"),
    ({"temperature": np.inf}, "temperature is inf; it must be finite"),
    ({"top_k": 0}, "top_k is 0"),
    ({"top_k": -1}, "top_k is -1"),
    ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number"),
    ({"top_p": 0.0}, "top_p is 0.0"),
    ({"top_p": -0.1}, "top_p is -0.1"),
    ({"top_p": 1.5}, "top_p is 1.5"),
    ({"top_p": np.nan}, "top_p is nan"),
  ],
)
def test_bad_sampling_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    Sampling(**options)
