"""Decoders of NNX as Linen decoders, for the exports and for generation."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from bitnet_jax.export.decoders import example_tokens
from bitnet_jax.inference.tensors import flat, is_nnx_model
from bitnet_jax.models.decoder import Decoder, DecoderConfig

# Names of NNX modules, and those of the decoder.
_NAMES = (
  (r"blocks/(\d+)/", r"blocks_\1/"),
  (r"embed/embedding$", "embed/tokens/embedding"),
)
# Two programs round some activations to other codes, and logits follow. This is
# far above what that makes, and far below what another network makes.
_MOST = 0.05


def decoder_from_nnx(
  model: Any, cfg: DecoderConfig
) -> tuple[Decoder, dict[str, Any]]:
  """Returns the ``Decoder`` that an NNX model is, with its parameters.

  ``write_hf``, ``write_gguf``, ``save_frozen`` and ``generate`` take both. The
  layers need the names of the decoder, see docs/export.md. Both are called, and
  their logits compared.

  Args:
    model: an NNX model from ids [b, t] to logits [b, t, v], frozen or not.
    cfg: its sizes. ``scan_layers`` is told from the names.

  Raises:
    TypeError: for a model that is not of NNX.
    ValueError: for parameters that are missing, not expected or of another
      shape, naming them, or for a model with other logits.

  Example:
    A model of which only the embeddings have their names:

    >>> from bitnet_jax.export import decoder_from_nnx
    >>> from bitnet_jax.models.decoder import DecoderConfig
    >>> from flax import nnx
    >>> class Model(nnx.Module):
    ...   def __init__(self, rngs):
    ...     self.embed = nnx.Embed(8, 4, rngs=rngs)
    >>> sizes = dict(hidden=4, num_heads=1, num_kv_heads=1, mlp_width=4)
    >>> cfg = DecoderConfig(vocab_size=8, num_layers=1, max_length=8, **sizes)
    >>> try:
    ...   decoder, variables = decoder_from_nnx(Model(nnx.Rngs(0)), cfg)
    ... except ValueError as error:
    ...   print(str(error).split(" is ")[:2])
    ['the model', 'no decoder of these sizes: blocks/attention/key/kernel']
  """
  if not is_nnx_model(model):
    raise TypeError(f"model is a {type(model).__name__}, not an NNX module")
  from bitnet_jax.nnx import bit_layers, linen_variables

  params = {
    _renamed(name): leaf
    for name, leaf in flat(linen_variables(model).get("params", {})).items()
  }
  is_scanned = not any(name.startswith("blocks_") for name in params)
  cfg = dataclasses.replace(cfg, scan_layers=is_scanned)
  rules = [
    (re.escape(_renamed(f"{layer.path}/").rstrip("/")), layer.recipe)
    for layer in bit_layers(model)
  ]
  decoder = Decoder(cfg, (*rules, (".*", "float")))
  _check_shapes(decoder, params)
  variables = {"params": traverse_util.unflatten_dict(params, sep="/")}
  _check_logits(model, decoder, variables)
  return decoder, variables


def _renamed(name: str) -> str:
  for pattern, new in _NAMES:
    name = re.sub(f"^{pattern}", new, name)
  return name


def _check_shapes(decoder, params):
  """Raises a ValueError unless names and shapes are those of the decoder."""
  tokens = jnp.zeros((1, 1), jnp.int32)
  expected = jax.eval_shape(
    lambda: nn.unbox(decoder.init(jax.random.key(0), tokens))
  )
  here, there = (
    {name: tuple(leaf.shape) for name, leaf in tree.items()}
    for tree in (params, flat(expected["params"]))
  )
  problems = [
    f"{name} is {here.get(name, 'not there')}, not"
    f" {there.get(name, 'expected')}"
    for name in sorted(here.keys() | there.keys())
    if here.get(name) != there.get(name)
  ]
  if problems:
    raise ValueError(
      f"the model is no decoder of these sizes: {'; '.join(problems[:8])}"
    )


def _check_logits(model, decoder, variables):
  """Raises a ValueError unless both compute the same."""
  from flax import nnx

  model = nnx.clone(model)
  model.eval()
  tokens = example_tokens(decoder.cfg)
  ours = np.asarray(jax.jit(decoder.apply)(variables, tokens), np.float32)
  theirs = nnx.jit(lambda model, tokens: model(tokens))(model, tokens)
  theirs = np.asarray(theirs, np.float32)
  if ours.shape != theirs.shape:
    raise ValueError(
      f"the model returns {[*theirs.shape]} for ids {[*tokens.shape]}; logits"
      f" {[*ours.shape]} are needed"
    )
  difference = np.abs(ours - theirs).mean() / ours.std()
  if not difference <= _MOST:
    raise ValueError(
      "the model has the parameters of a decoder but other logits, by"
      f" {difference:.2g} of their deviation on average; its code or the sizes"
      " (such as rotary_base, norm_eps, feed_forward, num_heads) differ"
    )
