"""Text of models that know more ids than their vocabularies."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.inference import Sampling
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.models.encoder_decoder import (
  EncoderDecoder,
  EncoderDecoderConfig,
)
from bitnet_jax.programs import writing
from tests.models.transformers_test import SIZES

MORE = {"tie_embeddings": False, "vocab_size": 2000, "max_length": 12}
OPTIONS = writing.WritingOptions(
  max_new_tokens=6, sampling=Sampling(temperature=9.0), num_beams=2
)


def make_writer(**more):
  tokenizer = load_tokenizer("bytes", texts=tuple)
  model = Decoder(DecoderConfig(**(SIZES | MORE)), "float")
  init = jax.jit(model.init)
  variables = nn.unbox(init(jax.random.key(0), jnp.zeros((1, 4), int)))
  return writing.Writer(model, variables, tokenizer, start_id=0, **more)


def test_ids_beyond_the_vocabulary_are_not_written():
  # 7 of 8 ids are beyond it, so that one of them would be drawn.
  written = writing.write(make_writer(), ["ab"], OPTIONS)
  assert written.tokens


@pytest.mark.slow
def test_answers_hold_no_ids_beyond_the_vocabulary():
  tokenizer = load_tokenizer("bytes", texts=tuple)
  cfg = EncoderDecoderConfig(**(SIZES | MORE), num_decoder_layers=1)
  model, tokens = EncoderDecoder(cfg, "float"), jnp.zeros((1, 4), int)
  variables = jax.jit(model.init)(jax.random.key(0), tokens, tokens)
  writer = writing.Writer(model, variables, tokenizer, start_id=256)
  assert writing.write(writer, ["ab", "c"], OPTIONS).tokens


@pytest.mark.parametrize(
  ("ids", "message"),
  [
    ({"stop_id": 2000}, "stop_id holds the id 2000"),
    ({"stop_id": "</s>"}, "stop_id holds <U4; ids are integers"),
    ({"first_id": -1}, "prompt 0 holds the id -1"),
  ],
)
def test_ids_that_the_model_does_not_have_are_named(ids, message):
  with pytest.raises(ValueError, match=message):
    writing.write(make_writer(**ids), ["ab"], OPTIONS)


def test_one_id_or_several_end_a_text():
  writer = make_writer()
  assert writer.stop_ids == (writer.tokenizer.eos_id,)
  assert writer._replace(stop_id=7).stop_ids == (7,)
  assert writer._replace(stop_id=[7, 1999]).stop_ids == (7, 1999)
  assert np.array_equal(writer.banned, np.arange(263, 2000))
