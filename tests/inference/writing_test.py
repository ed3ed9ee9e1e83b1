"""Writing with native kernels, which read weights and caches in place."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.inference import beam_search, freeze, generate, stream
from bitnet_jax.inference.generate import quantize_once
from bitnet_jax.models.cache import make_cache
from bitnet_jax.models.decoder import Decoder
from bitnet_jax.ops import lowering
from tests.inference.writers import SEARCH, decoder, translator

PROMPTS = [[1, 2, 3], [4], [5, 6, 1, 2, 0]]


@pytest.fixture
def kernels(compiled, one_device):
  """Nothing keeps what was traced without them, nor afterwards with them."""
  jax.clear_caches()
  yield
  jax.clear_caches()


def frozen_decoder(*, scanned=True):
  model, variables = decoder()
  variables = freeze(variables, model)
  if scanned:
    return model, variables
  cfg = dataclasses.replace(model.cfg, scan_layers=False)
  params = dict(variables["params"])
  blocks = params.pop("blocks")
  for i in range(cfg.num_layers):
    params[f"blocks_{i}"] = jax.tree.map(lambda a, i=i: a[i], blocks)
  return Decoder(cfg, model.recipe), {"params": params}


def without_kernels(function, *args, **options):
  jax.clear_caches()
  with lowering.portable():
    found = function(*args, **options)
  jax.clear_caches()
  return found


def step(model, variables):
  """Returns a function that reads one token, and its arguments."""
  tokens = jnp.zeros((2, 1), jnp.int32)

  def decode(variables, tokens):
    cache = make_cache(model.cfg, batch=2, length=9)
    return model.apply(variables, tokens, tokens, cache, method="decode")[0]

  return decode, quantize_once(model, variables, tokens), tokens


@pytest.mark.parametrize("scanned", [True, False])
def test_decoder_writes_what_it_does_without(scanned, kernels):
  model, variables = frozen_decoder(scanned=scanned)
  options = {"max_new_tokens": 5}
  found = generate(model, variables, PROMPTS, **options)
  streamed = [*stream(model, variables, PROMPTS, **options)]
  assert np.transpose(streamed).tolist() == found
  expected = without_kernels(generate, model, variables, PROMPTS, **options)
  assert found == expected


def test_search_finds_what_it_does_without(kernels):
  model, variables, inputs, mask = translator()
  options = SEARCH | {"num_beams": 2}
  found = beam_search(model, variables, inputs, mask, **options)
  expected = without_kernels(
    beam_search, model, variables, inputs, mask, **options
  )
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scanned", [True, False])
def test_a_token_takes_the_kernels(scanned, kernels):
  taken = lowering.explain(*step(*frozen_decoder(scanned=scanned)))
  assert ("packed_dot", "registers") in taken
  assert ("attend_cached", "in place") in taken
  assert ("packed_dot", "unpacked") not in taken


def test_no_weight_is_copied_for_a_layer(kernels):
  function, *arguments = step(*frozen_decoder())
  text = jax.jit(function).lower(*arguments).as_text()
  slices = [line for line in text.splitlines() if "slice" in line]
  assert slices
  assert not [line for line in slices if "ui8" in line]


def test_dtypes_without_a_kernel_are_attended_to_by_xla(kernels):
  model, variables = frozen_decoder()
  cfg = dataclasses.replace(model.cfg, dtype="bfloat16")
  model = Decoder(cfg, model.recipe)
  taken = lowering.explain(*step(model, variables))
  assert ("attend_cached", "xla") in taken
  assert generate(model, variables, PROMPTS, max_new_tokens=3)
