"""Decoders in the layout of other formats, block by block.

In files of Hugging Face transformers (names that start with HF here) kernels
are [d_out, d_in]. A byte holds four ternary codes, a quarter of the rows apart,
the first in the lowest bits. ``weight_scale`` is stored beside them: the scale
if ``linear_class`` is "autobitlinear", its reciprocal if it is "bitlinear".
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from bitnet_jax.layers.feed_forward import KINDS
from bitnet_jax.layers.introspection import bit_layers
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.models.registry import example_call
from bitnet_jax.ops.packing import pack_kernel, unpacked
from bitnet_jax.quantizers.quantizer import TERNARY_RANGE
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.types import QTensor

# The quantized parts of a block, and the norms, which only have a scale.
PROJECTIONS = (
  "attention/query",
  "attention/key",
  "attention/value",
  "attention/out",
  "feed_forward/gate",
  "feed_forward/up",
  "feed_forward/down",
)
NORMS = ("attention_norm", "feed_forward_norm")
SUB_NORMS = ("attention/sub_norm", "feed_forward/sub_norm")

HF_CONFIG, HF_TENSORS = "config.json", "model.safetensors"
# Ids that begin and end texts; takes precedence over HF_CONFIG.
HF_GENERATION = "generation_config.json"
HF_INDEX = f"{HF_TENSORS}.index.json"
# weight_scale is the scale in the first, its reciprocal in the second.
LINEAR_CLASSES = ("autobitlinear", "bitlinear")
# The metadata key of exact scales, where their reciprocals are stored.
EXACT_SCALES = "scales"
HF_EMBEDDING, HF_FINAL_NORM = "model.embed_tokens.weight", "model.norm.weight"
HF_HEAD = "lm_head.weight"
HF_ACTIVATIONS = {
  "relu2_gated": "relu2",
  "swiglu": "silu",
  "geglu": "gelu_pytorch_tanh",
  "reglu": "relu",
}
_HF_NAMES = {
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

Need = tuple[bool, str]
Block = dict[str, Any]


def refuse(target: str, needs: Iterable[Need]) -> None:
  """Raises a ValueError that lists the unmet needs of a format.

  Args:
    target: name of the format.
    needs: pairs of whether a need is met, and the message if it is not.
  """
  problems = [problem for met, problem in needs if not met]
  if problems:
    raise ValueError(f"{target} cannot hold this model: {'; '.join(problems)}")


def check_decoder(target: str, model: Any) -> None:
  """Raises a ValueError unless the model is a decoder."""
  name = type(model).__name__
  refuse(
    target, [(isinstance(model, Decoder), f"it is a {name}, not a Decoder")]
  )


def architecture_needs(cfg: DecoderConfig) -> list[Need]:
  """Returns the needs of all formats of Llama-like decoders."""
  gated = [name for name, kind in KINDS.items() if kind.gated]
  return [
    (cfg.norm == "rms_norm", f"model.norm is {cfg.norm!r}, not 'rms_norm'"),
    (
      cfg.positions == "rotary",
      f"model.positions is {cfg.positions!r}, not 'rotary'",
    ),
    (not cfg.use_bias, "model.use_bias is True, not False"),
    (
      cfg.feed_forward in gated,
      f"model.feed_forward is {cfg.feed_forward!r}, not gated: {gated}",
    ),
    (
      not cfg.sub_norm or cfg.num_heads * cfg.features_of_head == cfg.hidden,
      f"model.num_heads * model.head_dim is not model.hidden, {cfg.hidden}",
    ),
  ]


def recipe_needs(
  model: Decoder, variables: Mapping[str, Any]
) -> tuple[Recipe, list[Need]]:
  """Returns the recipe of the projections, and the needs of all formats for it.

  Args:
    model: a decoder.
    variables: its variables, frozen or not.
  """
  args, kwargs = example_call(model, variables["params"])
  recipes = {
    layer.path: layer.recipe for layer in bit_layers(model, *args, **kwargs)
  }
  head = recipes.pop("head", None)
  recipe = next(iter(recipes.values()))
  kinds = {(r.weights, r.acts, r.norm) for r in recipes.values()}
  weights = recipe.weights
  return recipe, [
    (
      head is None or head.is_float,
      "the recipe of head is not 'float' (quant.rules=(('head', 'float'),), or"
      " model.tie_embeddings=True)",
    ),
    (len(kinds) == 1, "the recipes of its projections differ (quant.rules)"),
    (
      weights is not None
      and weights.range == TERNARY_RANGE
      and weights.axis is None,
      "its kernels are not ternary with one scale each; quant.recipe"
      " 'bitnet_2b4t' works",
    ),
  ]


def parts(cfg: DecoderConfig) -> list[str]:
  """Returns the parts of a block that have parameters."""
  return [*PROJECTIONS, *NORMS, *(SUB_NORMS if cfg.sub_norm else ())]


def part_shapes(cfg: DecoderConfig) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of kernels and norms, by part of a block."""
  hidden, width, head = cfg.hidden, cfg.mlp_width, cfg.features_of_head
  queries, keys = cfg.num_heads * head, cfg.num_kv_heads * head
  return {
    "attention_norm": (hidden,),
    "attention/query": (hidden, queries),
    "attention/key": (hidden, keys),
    "attention/value": (hidden, keys),
    "attention/sub_norm": (queries,),
    "attention/out": (queries, hidden),
    "feed_forward_norm": (hidden,),
    "feed_forward/gate": (hidden, width),
    "feed_forward/up": (hidden, width),
    "feed_forward/sub_norm": (width,),
    "feed_forward/down": (width, hidden),
  }


def hf_names(cfg: DecoderConfig, layer: int) -> dict[str, str]:
  """Returns the names of a block's parts in transformers, by our names."""
  return {
    part: f"model.layers.{layer}.{_HF_NAMES[part]}" for part in parts(cfg)
  }


def hf_pack(codes: np.ndarray) -> np.ndarray:
  """Packs ternary codes [d_out, d_in] as [d_out / 4, d_in]."""
  digits = (codes + 1).astype(np.uint8).reshape(4, -1, codes.shape[-1])
  shifted = [digits[i] << np.uint8(2 * i) for i in range(4)]
  return np.bitwise_or.reduce(shifted, axis=0)


def hf_unpack(data: np.ndarray) -> np.ndarray:
  """Unpacks codes from bytes; two set bits give 2, which is no valid code."""
  digits = np.concatenate([data >> np.uint8(2 * i) & 3 for i in range(4)])
  return digits.astype(np.int8) - np.int8(1)


def split(params: Mapping[str, Any], cfg: DecoderConfig) -> list[Block]:
  """Returns the leaves of each block by path, on the host.

  Kernels are ``QTensor`` with int8 codes [d_in, d_out] and one scale, or
  arrays where they are not quantized.

  Args:
    params: parameters of a decoder, with stacked or single blocks.
    cfg: its sizes.
  """
  layers = range(cfg.num_layers)
  if "blocks" not in params:
    blocks = [_flat(params[f"blocks_{i}"]) for i in layers]
    return [{n: _at(leaf, ...) for n, leaf in b.items()} for b in blocks]
  stacked = _flat(params["blocks"])
  return [{n: _at(leaf, i) for n, leaf in stacked.items()} for i in layers]


def join(blocks: Sequence[Block], rest: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the parameters of a scanned decoder; see ``split``.

  Args:
    blocks: leaves of each block by path; int8 kernels are packed.
    rest: the other parameters, a tree.
  """
  stacked = {}
  for name in blocks[0]:
    leaves = [block[name] for block in blocks]
    leaf = jax.tree.map(lambda *parts: jnp.asarray(np.stack(parts)), *leaves)
    if isinstance(leaf, QTensor):
      leaf = QTensor(pack_kernel(leaf.codes, stack=(0,)), leaf.scale)
    stacked[name] = leaf
  return {**rest, "blocks": traverse_util.unflatten_dict(stacked, sep="/")}


def scanned_model(cfg: DecoderConfig, recipe: Recipe) -> Decoder:
  """Returns a decoder of these sizes that takes stacked parameters."""
  cfg = dataclasses.replace(
    cfg, scan_layers=True, remat="none", head_dim=cfg.features_of_head
  )
  return Decoder(cfg, (("head", "float"), (".*", recipe)))


def scanned(params: Mapping[str, Any], cfg: DecoderConfig) -> dict[str, Any]:
  """Returns the parameters with stacked blocks."""
  rest = {n: leaf for n, leaf in params.items() if not n.startswith("blocks")}
  return join(split(params, cfg), rest)


def _flat(tree):
  return traverse_util.flatten_dict(dict(tree), sep="/")


def _at(leaf, index):
  if isinstance(leaf, QTensor):
    leaf = unpacked(jax.tree.map(lambda a: a[index], leaf))
  else:
    leaf = leaf[index]
  return jax.device_get(leaf)


def check_read_back(
  what: Any,
  own: tuple[Decoder, Mapping[str, Any]],
  found: tuple[Decoder, Mapping[str, Any]],
) -> None:
  """Raises an OSError unless two decoders have the same logits, bit for bit.

  Args:
    what: the file or folder, for the message.
    own: the written scanned model and its parameters.
    found: the model and parameters that were read.
  """
  ours, theirs = (
    _example_logits(model, {"params": params}) for model, params in (own, found)
  )
  if not np.array_equal(ours, theirs):
    difference = np.abs(ours - theirs).max()
    raise OSError(
      f"{what} does not reproduce the model's outputs: logits differ by up to"
      f" {difference}"
    )


def example_tokens(cfg: DecoderConfig, length: int = 64) -> np.ndarray:
  """Returns a row of random tokens, int32 [1, t]."""
  length = min(length, cfg.max_length)
  rng = np.random.default_rng(0)
  return rng.integers(0, cfg.vocab_size, (1, length), np.int32)


def _example_logits(model: Decoder, variables: Mapping[str, Any]) -> np.ndarray:
  """Returns logits of a row of random tokens, float32 [1, t, v]."""
  tokens = example_tokens(model.cfg)
  return np.asarray(_call(model, variables, tokens), np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _call(model, variables, tokens):
  return model.apply(variables, tokens)
