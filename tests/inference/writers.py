"""Small models that write, for the tests of this folder."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.inference import beam_search
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.models.encoder_decoder import (
  EncoderDecoder,
  EncoderDecoderConfig,
)
from tests.models.transformers_test import SIZES

VOCAB = 7


@functools.cache
def boxed_decoder(recipe):
  more = {"tie_embeddings": False, "vocab_size": VOCAB}
  model = Decoder(DecoderConfig(**(SIZES | more)), recipe)
  init = jax.jit(model.init)
  return model, init(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))


def decoder(recipe="b158"):
  model, variables = boxed_decoder(recipe)
  return model, nn.unbox(variables)


@functools.cache
def boxed_translator():
  more = {"num_decoder_layers": 1, "tie_embeddings": False, "vocab_size": VOCAB}
  model = EncoderDecoder(EncoderDecoderConfig(**(SIZES | more)), "float")
  # In dtypes of their own, since who asks first may have set another default.
  inputs = np.random.default_rng(0).integers(2, VOCAB, (3, 5))
  inputs = jnp.asarray(inputs, jnp.int32)
  variables = jax.jit(model.init)(jax.random.key(1), inputs, inputs)
  mask = [[1] * 5, [1] * 3 + [0] * 2, [1] * 4 + [0]]
  mask = jnp.asarray(mask, jnp.int32)
  return model, variables, inputs, mask


def translator():
  model, variables, *arrays = boxed_translator()
  return model, nn.unbox(variables), *arrays


SEARCH = {"start_id": 0, "stop_id": 1, "max_length": 4}


def search(**options):
  model, variables, inputs, mask = translator()
  given = {"inputs": inputs, "input_mask": mask} | SEARCH | options
  return np.asarray(beam_search(model, variables, **given))


def spoiled(variables, value):
  """Variables whose head has another value in the column of one token."""
  params = variables["params"]
  kernel = params["head"]["kernel"].at[:, 3].set(value)
  head = params["head"] | {"kernel": kernel}
  return {"params": params | {"head": head}}
