"""How transformers lays out and names the parts of a decoder.

Kernels there are [d_out, d_in]. Four codes share a byte, a quarter of the rows
apart, the first in the lowest bits, and ``weight_scale`` stands beside them:
what the codes are multiplied by if ``linear_class`` is "autobitlinear", and its
reciprocal if it is "bitlinear".
"""

import numpy as np

from bitnet_jax.export import decoders
from bitnet_jax.models.decoder import DecoderConfig

CONFIG, TENSORS = "config.json", "model.safetensors"
# How texts begin and end: what it says counts before what CONFIG says.
GENERATION = "generation_config.json"
INDEX = f"{TENSORS}.index.json"
# What weight_scale is: the scale, or one over it.
LINEAR_CLASSES = ("autobitlinear", "bitlinear")
# Where the file keeps scales of which it has reciprocals.
EXACT_SCALES = "scales"
EMBEDDING, FINAL_NORM = "model.embed_tokens.weight", "model.norm.weight"
HEAD = "lm_head.weight"
ACTIVATIONS = {
  "relu2_gated": "relu2",
  "swiglu": "silu",
  "geglu": "gelu_pytorch_tanh",
  "reglu": "relu",
}
_NAMES = {
  "attention_norm": "input_layernorm",
  "attention/query": "self_attn.q_proj",
  "attention/key": "self_attn.k_proj",
  "attention/value": "self_attn.v_proj",
  "attention/sub_norm": "self_attn.attn_sub_norm",
  "attention/out": "self_attn.o_proj",
  "feed_forward_norm": "post_attention_layernorm",
  "feed_forward/gate": "mlp.gate_proj",
  "feed_forward/up": "mlp.up_proj",
  "feed_forward/sub_norm": "mlp.ffn_sub_norm",
  "feed_forward/down": "mlp.down_proj",
}


def names(cfg: DecoderConfig, layer: int) -> dict[str, str]:
  """Returns the names of the parts of a block, by ours."""
  return {
    part: f"model.layers.{layer}.{_NAMES[part]}" for part in decoders.parts(cfg)
  }


def pack(codes: np.ndarray) -> np.ndarray:
  """Packs ternary codes [d_out, d_in] as [d_out / 4, d_in]."""
  digits = (codes + 1).astype(np.uint8).reshape(4, -1, codes.shape[-1])
  shifted = [digits[i] << np.uint8(2 * i) for i in range(4)]
  return np.bitwise_or.reduce(shifted, axis=0)


def unpack(data: np.ndarray) -> np.ndarray:
  """Returns the codes; those of two set bits are 2, which is none."""
  digits = np.concatenate([data >> np.uint8(2 * i) & 3 for i in range(4)])
  return digits.astype(np.int8) - np.int8(1)
