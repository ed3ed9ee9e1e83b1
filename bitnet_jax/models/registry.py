"""Models by name."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from bitnet_jax import choices
from bitnet_jax.layers.introspection import BitLayer
from bitnet_jax.models.base import Call, Model
from bitnet_jax.models.cnn import Cnn, CnnConfig
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.models.detector import Detector, DetectorConfig
from bitnet_jax.models.encoder import Encoder, EncoderConfig
from bitnet_jax.models.encoder_decoder import (
  EncoderDecoder,
  EncoderDecoderConfig,
)
from bitnet_jax.models.gnn import Gnn, GnnConfig
from bitnet_jax.models.mlp import Mlp, MlpConfig
from bitnet_jax.models.vit import Vit, VitConfig
from bitnet_jax.models.wide_mlp import WideMlp, WideMlpConfig
from bitnet_jax.quantizers.recipe import Rules, check_used


class Family(NamedTuple):
  """A model: its class, and the class of its sizes."""

  module: type[nn.Module]
  config: type


MODELS: dict[str, Family] = {
  "cnn": Family(Cnn, CnnConfig),
  "decoder": Family(Decoder, DecoderConfig),
  "detector": Family(Detector, DetectorConfig),
  "encoder": Family(Encoder, EncoderConfig),
  "encoder_decoder": Family(EncoderDecoder, EncoderDecoderConfig),
  "gnn": Family(Gnn, GnnConfig),
  "mlp": Family(Mlp, MlpConfig),
  "vit": Family(Vit, VitConfig),
  "wide_mlp": Family(WideMlp, WideMlpConfig),
}


def get_family(name: str) -> Family:
  """Returns the model of that name; a ValueError lists the names."""
  return choices.pick(MODELS, name, key="model.name")


def example_call(model: nn.Module, params: Mapping[str, Any]) -> Call:
  """Returns the smallest arguments of a call of a model of this package.

  Args:
    model: of one of the families in ``MODELS``.
    params: its parameters, or their shapes; kernels may be frozen.

  Returns:
    Positional and keyword arguments, with shapes for arrays.

  Raises:
    ValueError: for any other model, whose inputs only its owner knows.
  """
  known = type(model) in [family.module for family in MODELS.values()]
  if not isinstance(model, Model) or not known:
    raise ValueError(
      f"{type(model).__name__} is not a model of this package, so its inputs"
      " are unknown; give an example of them, arrays or jax.ShapeDtypeStruct"
    )
  return model.example_call(params)


def check_rules(rules: Rules, layers: Sequence[BitLayer]) -> None:
  """Raises a ValueError for a rule that decides for none of ``layers``."""
  check_used(rules, [layer.path for layer in layers])
