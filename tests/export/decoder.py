"""Decoders to export."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bitnet_jax.inference import freeze
from bitnet_jax.models.decoder import Decoder, DecoderConfig

SIZES = dict(
  hidden=64,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=None,
  mlp_width=96,
  feed_forward="relu2_gated",
  norm="rms_norm",
  norm_eps=1e-5,
  sub_norm=True,
  use_bias=False,
  positions="rotary",
  rotary_base=10_000.0,
  max_length=64,
  dropout=0.0,
  scan_layers=True,
  remat="none",
  dtype="float32",
  param_dtype="float32",
  tie_embeddings=False,
  vocab_size=265,
)
# What differs for a file of llama.cpp.
GGUF = dict(hidden=256, mlp_width=256, feed_forward="swiglu")
BITNET = GGUF | dict(tie_embeddings=True)
LLAMA = GGUF | dict(sub_norm=False)


def _model(recipe, sizes):
  cfg = DecoderConfig(**(SIZES | sizes))
  rules = () if cfg.tie_embeddings else (("head", "float"),)
  return Decoder(cfg, (*rules, (".*", recipe)))


def make(recipe="bitnet_2b4t", **sizes):
  """Returns a decoder and its variables, with norms that are not all one."""
  model = _model(recipe, sizes)

  @jax.jit
  def init(key):
    variables = nn.unbox(model.init(key, jnp.zeros((1, 4), jnp.int32)))
    return jax.tree_util.tree_map_with_path(vary, variables)

  def vary(path, leaf):
    if path[-1].key != "scale":
      return leaf
    return leaf + 0.1 * jax.random.normal(jax.random.key(len(path)), leaf.shape)

  return model, init(jax.random.key(0))


def make_shapes(recipe="bitnet_2b4t", **sizes):
  """Returns a decoder and the shapes of its variables."""
  model = _model(recipe, sizes)
  tokens = jnp.zeros((1, 4), jnp.int32)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))
  return model, nn.unbox(shapes)


def make_frozen(recipe="bitnet_2b4t", **sizes):
  """Returns the same, frozen."""
  model, variables = make(recipe, **sizes)
  return model, freeze(variables, model)
