"""The smallest inputs that a model takes, told from its parameters alone."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bitnet_jax.layers.introspection import kernel_at
from bitnet_jax.models.cnn import Cnn
from bitnet_jax.models.decoder import Decoder
from bitnet_jax.models.encoder import Encoder
from bitnet_jax.models.encoder_decoder import EncoderDecoder
from bitnet_jax.models.gnn import Gnn
from bitnet_jax.models.mlp import Mlp
from bitnet_jax.models.vit import Vit
from bitnet_jax.models.wide_mlp import WideMlp

Call = tuple[tuple[Any, ...], dict[str, Any]]


def example_call(model: nn.Module, params: Mapping[str, Any]) -> Call:
  """Returns arguments for a call of a model of this package, as shapes.

  Args:
    model: one of the families in ``registry.MODELS``.
    params: its parameters, or their shapes; kernels may be frozen.

  Returns:
    Positional and keyword arguments.

  Raises:
    ValueError: for any other model, whose inputs only its owner knows.
  """
  if type(model) not in _CALLS:
    raise ValueError(
      f"{type(model).__name__} is not a model of this package, so that nothing"
      " says what it takes; give an example of its inputs, arrays or"
      " jax.ShapeDtypeStruct"
    )
  return _CALLS[type(model)](model, params)


def _floats(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _integers(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def _of_mlp(model, params) -> Call:
  del model
  return (_floats(1, params["layer_0"]["kernel"].shape[0]),), {}


def _of_cnn(model, params) -> Call:
  """An image a pixel high, or a row of such, before the dense layer."""
  channels = model.cfg.channels
  width = params["dense"]["kernel"].shape[0] // channels[-1]
  side = 2 ** len(channels)
  c_in = params["conv_0_0"]["kernel"].shape[-2]
  return (_floats(1, side, side * width, c_in),), {}


def _of_vit(model, params) -> Call:
  """As many patches, side by side, as there are positions."""
  patch = model.cfg.patch
  count = params["positions"].shape[0] if "positions" in params else 1
  c_in = params["patches"]["kernel"].shape[0] // patch**2
  return (_floats(1, patch, patch * count, c_in),), {}


def _of_gnn(model, params) -> Call:
  """One node of one graph, with an edge to itself."""
  inside = {"sgc": "head", "sage": "layer_0/self"}
  first = inside.get(model.cfg.kind, "layer_0/dense")
  d_in = kernel_at(params, first).shape[0]
  graphs = None if model.cfg.pooling == "none" else _integers(1, 1)
  return (_floats(1, 1, d_in), _integers(1, 1), _integers(1, 1), graphs), {}


def _of_documents(model, params) -> Call:
  """One piece in one document."""
  del model, params
  entries = (_integers(1), _integers(1), _floats(1))
  return entries, {"num_documents": 1}


def _of_tokens(model, params) -> Call:
  del model, params
  return (_integers(1, 1),), {}


def _of_two_texts(model, params) -> Call:
  del model, params
  return (_integers(1, 1), _integers(1, 1)), {}


_CALLS: dict[type[nn.Module], Callable[..., Call]] = {
  Cnn: _of_cnn,
  Decoder: _of_tokens,
  Encoder: _of_tokens,
  EncoderDecoder: _of_two_texts,
  Gnn: _of_gnn,
  Mlp: _of_mlp,
  Vit: _of_vit,
  WideMlp: _of_documents,
}
