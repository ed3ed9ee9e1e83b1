"""A decoder of NNX in the files of transformers and llama.cpp."""

import dataclasses

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bitnet_jax.export import decoder_from_nnx, read_hf, write_gguf, write_hf
from bitnet_jax.inference import freeze, generate
from bitnet_jax.layers.attention import rotate
from bitnet_jax.models.decoder import DecoderConfig
from bitnet_jax.nnx import BitLinear
from tests.export.decoder import BITNET, SIZES

CFG = DecoderConfig(**(SIZES | BITNET | {"mlp_width": 512}))


def norm(size, rngs):
  return nnx.RMSNorm(size, epsilon=CFG.norm_eps, rngs=rngs)


def linear(d_in, d_out, rngs):
  return BitLinear(d_in, d_out, use_bias=False, recipe="bitnet_2b4t", rngs=rngs)


class Attention(nnx.Module):
  """Grouped-query attention with rotary positions."""

  def __init__(self, rngs):
    d, self.head = CFG.hidden, CFG.features_of_head
    self.query = linear(d, CFG.num_heads * self.head, rngs)
    self.key = linear(d, CFG.num_kv_heads * self.head, rngs)
    self.value = linear(d, CFG.num_kv_heads * self.head, rngs)
    self.sub_norm = norm(d, rngs)
    self.out = linear(d, d, rngs)

  def __call__(self, x):
    places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    q, k, v = (
      layer(x).reshape(*x.shape[:2], -1, self.head)
      for layer in (self.query, self.key, self.value)
    )
    q, k = (rotate(y, places, base=CFG.rotary_base) for y in (q, k))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return self.out(self.sub_norm(y.reshape(x.shape)))


class FeedForward(nnx.Module):
  """A gated feed-forward layer."""

  def __init__(self, rngs):
    self.gate = linear(CFG.hidden, CFG.mlp_width, rngs)
    self.up = linear(CFG.hidden, CFG.mlp_width, rngs)
    self.sub_norm = norm(CFG.mlp_width, rngs)
    self.down = linear(CFG.mlp_width, CFG.hidden, rngs)

  def __call__(self, x):
    return self.down(self.sub_norm(nnx.silu(self.gate(x)) * self.up(x)))


class Block(nnx.Module):
  """Attention and feed-forward."""

  def __init__(self, rngs):
    self.attention_norm = norm(CFG.hidden, rngs)
    self.attention = Attention(rngs)
    self.feed_forward_norm = norm(CFG.hidden, rngs)
    self.feed_forward = FeedForward(rngs)

  def __call__(self, x):
    x = x + self.attention(self.attention_norm(x))
    return x + self.feed_forward(self.feed_forward_norm(x))


class Language(nnx.Module):
  """Blocks between embeddings and logits."""

  def __init__(self, rngs):
    self.embed = nnx.Embed(CFG.vocab_size, CFG.hidden, rngs=rngs)
    self.blocks = nnx.List([Block(rngs) for _ in range(CFG.num_layers)])
    self.final_norm = norm(CFG.hidden, rngs)

  def __call__(self, tokens):
    x = self.embed(tokens)
    for block in self.blocks:
      x = block(x)
    return self.embed.attend(self.final_norm(x))


@pytest.fixture(scope="module")
def model():
  return nnx.jit(lambda: Language(nnx.Rngs(0)))()


@pytest.fixture(scope="module")
def frozen(model):
  return decoder_from_nnx(freeze(model), CFG)


@pytest.mark.slow
def test_files_of_transformers_hold_the_codes(tmp_path, model, frozen):
  write_hf(tmp_path, *frozen)
  found = read_hf(tmp_path).variables["params"]["blocks"]
  for i, block in enumerate(freeze(model).blocks):
    own = block.feed_forward.down.kernel.get_value()
    kernel = found["feed_forward"]["down"]["kernel"]
    np.testing.assert_array_equal(kernel.codes[i], own.codes)
    np.testing.assert_array_equal(kernel.scale[i], own.scale)


@pytest.mark.slow
def test_files_of_llama_cpp_hold_the_codes(tmp_path, model, frozen):
  write_gguf(tmp_path / "m.gguf", *frozen)
  found = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
  for i, block in enumerate(freeze(model).blocks):
    own = block.attention.key.kernel.get_value()
    tensor = found[f"blk.{i}.attn_k.weight"]
    codes = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    np.testing.assert_array_equal(codes, own.codes.T)


@pytest.mark.slow
def test_decoder_of_nnx_generates(model, frozen):
  found = generate(*frozen, [[1, 2, 3]], max_new_tokens=8)[0]
  tokens = [1, 2, 3]
  frozen = freeze(model)
  for token in found[-8:]:
    logits = frozen(jnp.asarray([tokens]))[0, -1]
    assert int(jnp.argmax(logits)) == int(token)
    tokens.append(int(token))


def test_other_sizes_are_refused():
  model = nnx.eval_shape(lambda: Language(nnx.Rngs(0)))
  wider = dataclasses.replace(CFG, num_layers=3, tie_embeddings=False)
  with pytest.raises(ValueError, match=r"blocks_2/attention/key/kernel is not"):
    decoder_from_nnx(model, wider)
  with pytest.raises(TypeError, match="model is a Rngs, not an NNX module"):
    decoder_from_nnx(nnx.Rngs(0), CFG)


@pytest.mark.slow
@pytest.mark.parametrize(
  "change", [{"feed_forward": "reglu"}, {"rotary_base": 100.0}]
)
def test_network_with_other_logits_is_refused(model, change):
  other = dataclasses.replace(CFG, **change)
  with pytest.raises(ValueError, match=r"but other logits, by 0\.\d+ of their"):
    decoder_from_nnx(model, other)
