"""Reads decoders from the files of Hugging Face transformers."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.construct import construct
from bitnet_jax.export import decoders
from bitnet_jax.export.decoders import PROJECTIONS
from bitnet_jax.files import parse_json, read_json
from bitnet_jax.inference.tensors import load_tensors
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.ops.norm import NORM_EPS
from bitnet_jax.quantizers.recipe import RECIPES, Recipe
from bitnet_jax.types import QTensor

# Errors that values of an unexpected type cause in the code that reads them.
_DAMAGE = (
  AttributeError,
  KeyError,
  OverflowError,
  RecursionError,
  TypeError,
  ZeroDivisionError,
)


class HfModel(NamedTuple):
  """An imported decoder.

  Attributes:
    model: the decoder.
    variables: its variables, frozen or with latent weights.
    is_frozen: whether they are frozen.
  """

  model: Decoder
  variables: dict[str, Any]
  is_frozen: bool


def read_hf(folder: str | pathlib.Path) -> HfModel:
  """Reads a Llama-like or BitNet decoder.

  Args:
    folder: with ``config.json`` and ``model.safetensors``, in one or several
      parts.

  Returns:
    A decoder: frozen if the files have packed codes; else with latent weights
    in float32 and the recipe of the file's layers, "float" if they have none.

  Raises:
    FileNotFoundError: if a file is missing.
    ImportError: if ``safetensors`` is not installed.
    ValueError: for damaged files and unsupported models, with the reason.

  Example:
    >>> import jax
    >>> from bitnet_jax.models.decoder import Decoder, DecoderConfig
    >>> sizes = dict(hidden=32, num_layers=1, num_heads=2, num_kv_heads=2)
    >>> cfg = DecoderConfig(
    ...   **sizes, mlp_width=32, max_length=16, vocab_size=50
    ... )
    >>> model = Decoder(cfg, (("head", "float"), (".*", "bitnet_2b4t")))
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 4), int))
    >>> from bitnet_jax.export import read_hf, write_hf
    >>> from bitnet_jax.inference import freeze
    >>> write_hf("exported/mine", model, freeze(variables, model))
    >>> found = read_hf("exported/mine")
    >>> found.model.cfg.vocab_size, found.is_frozen
    (50, True)
  """
  folder = pathlib.Path(folder).expanduser()
  config = read_json(folder / decoders.HF_CONFIG)
  try:
    cfg, recipe, kind = _read_config(config)
  except KeyError as error:
    raise ValueError(f"{folder / decoders.HF_CONFIG} lacks {error}") from error
  except _DAMAGE as error:
    raise ValueError(f"{folder / decoders.HF_CONFIG}: {error!r}") from error
  except ValueError as error:
    raise ValueError(f"{folder / decoders.HF_CONFIG}: {error}") from error
  tensors, metadata = _read_files(folder)
  try:
    params = _from_tensors(cfg, recipe, kind, tensors, metadata)
  except _DAMAGE as error:
    raise ValueError(f"{folder / decoders.HF_TENSORS}: {error!r}") from error
  except ValueError as error:
    raise ValueError(f"{folder / decoders.HF_TENSORS}: {error}") from error
  is_frozen = kind in decoders.LINEAR_CLASSES
  model = decoders.scanned_model(cfg, recipe)
  return HfModel(model, {"params": params}, is_frozen)


def _read_config(config) -> tuple[DecoderConfig, Recipe, str]:
  """Returns sizes, recipe, and the linear class; "latent" for weights."""
  model_type = choices.pick(
    {"bitnet": True, "llama": False}, config["model_type"], key="model_type"
  )
  rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
  kinds = {theirs: ours for ours, theirs in decoders.HF_ACTIVATIONS.items()}
  for key, expected in (("attention_bias", False), ("mlp_bias", False)):
    if config.get(key, expected) != expected:
      raise ValueError(f"{key} is {config[key]!r}; only {expected} is read")
  if rope.get("rope_type", rope.get("type", "default")) != "default":
    raise ValueError(f"the rotary positions are {rope}; only default is read")
  heads = config["num_attention_heads"]
  dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
  quantization = config.get("quantization_config") or {}
  recipe, kind = _read_quantization(quantization)
  sizes = dict(
    hidden=config["hidden_size"],
    num_layers=config["num_hidden_layers"],
    num_heads=heads,
    num_kv_heads=config.get("num_key_value_heads") or heads,
    head_dim=config.get("head_dim"),
    mlp_width=config["intermediate_size"],
    feed_forward=choices.pick(kinds, config["hidden_act"], key="hidden_act"),
    norm="rms_norm",
    norm_eps=config["rms_norm_eps"],
    sub_norm=model_type,
    use_bias=False,
    positions="rotary",
    rotary_base=rope.get("rope_theta") or config["rope_theta"],
    max_length=config["max_position_embeddings"],
    dropout=0.0,
    scan_layers=True,
    remat="none",
    dtype=dtype,
    param_dtype="float32",
    tie_embeddings=config.get("tie_word_embeddings", False),
    vocab_size=config["vocab_size"],
  )
  cfg = construct(DecoderConfig, sizes, group="")
  for name, value in (
    ("rms_norm_eps", cfg.norm_eps),
    ("rope_theta", cfg.rotary_base),
  ):
    if not 0 < value < math.inf:
      raise ValueError(f"{name} is {value}, which is not positive and finite")
  return cfg, recipe, kind


def _read_quantization(found) -> tuple[Recipe, str]:
  if not found:
    return RECIPES["float"], "latent"
  choices.check(found["quant_method"], ("bitnet",), key="quant_method")
  linear_class = found.get("linear_class", "bitlinear")
  choices.check(linear_class, decoders.LINEAR_CLASSES, key="linear_class")
  norm = None
  if found.get("use_rms_norm"):
    norm = "rms_norm"
    if found.get("rms_norm_eps") != NORM_EPS:
      raise ValueError(
        f"rms_norm_eps is {found.get('rms_norm_eps')}; only {NORM_EPS} is"
        " supported in layers"
      )
  recipe = dataclasses.replace(RECIPES["bitnet_2b4t"], norm=norm)
  mode = found.get("quantization_mode", "offline")
  choices.check(mode, ("offline", "online"), key="quantization_mode")
  return recipe, "latent" if mode == "online" else linear_class


def _read_files(folder):
  """Returns all arrays and the metadata of the file."""
  if not (folder / decoders.HF_INDEX).exists():
    return load_tensors(folder / decoders.HF_TENSORS)
  names = read_json(folder / decoders.HF_INDEX).get("weight_map")
  if not isinstance(names, dict) or not names:
    raise ValueError(f"{folder / decoders.HF_INDEX} lacks weight_map")
  tensors = {}
  for name in sorted({str(name) for name in names.values()}):
    if pathlib.PurePath(name).name != name or not name.isprintable():
      raise ValueError(
        f"{folder / decoders.HF_INDEX} names {name!r}, which is not a file in"
        " the same folder"
      )
    tensors |= load_tensors(folder / name)[0]
  return tensors, {}


class _Arrays:
  """Arrays by name; each can be taken once."""

  def __init__(self, tensors: Mapping[str, jax.Array]):
    self.tensors = dict(tensors)

  def floats(self, name: str, *shape: int) -> np.ndarray:
    """Returns an array of floats, in float32."""
    array = self._take(name, shape, jnp.floating)
    return np.asarray(array.astype(jnp.float32))

  def bytes(self, name: str, *shape: int) -> np.ndarray:
    """Returns an array of bytes."""
    return np.asarray(self._take(name, shape, jnp.uint8))

  def _take(self, name, shape, dtype):
    if name not in self.tensors:
      raise ValueError(f"the array {name} is missing")
    array = self.tensors.pop(name)
    if array.shape != shape or not jnp.issubdtype(array.dtype, dtype):
      raise ValueError(
        f"{name} is {array.dtype}{[*array.shape]}, not {dtype.__name__}"
        f"{[*shape]}"
      )
    return array


def _from_tensors(cfg, recipe, kind, tensors, metadata) -> dict[str, Any]:
  if cfg.num_layers > len(tensors):
    raise ValueError(
      f"num_hidden_layers is {cfg.num_layers}, but there are {len(tensors)}"
      " arrays"
    )
  arrays = _Arrays(tensors)
  exact = parse_json(metadata.get(decoders.EXACT_SCALES, "{}"))
  shapes = decoders.part_shapes(cfg)
  blocks = []
  for i in range(cfg.num_layers):
    block = {}
    for part, name in decoders.hf_names(cfg, i).items():
      if part in PROJECTIONS:
        if recipe.norm is not None:
          _check_ones(arrays, name, shapes[part][0])
        kernel = _kernel(arrays, name, shapes[part], kind, exact)
        block[f"{part}/kernel"] = kernel
      else:
        block[f"{part}/scale"] = arrays.floats(f"{name}.weight", *shapes[part])
    blocks.append(block)
  table = cfg.vocab_size, cfg.hidden
  embedding = arrays.floats(decoders.HF_EMBEDDING, *table)
  rest: dict[str, Any] = {
    "embed": {"tokens": {"embedding": embedding}},
    "final_norm": {"scale": arrays.floats(decoders.HF_FINAL_NORM, cfg.hidden)},
  }
  if not cfg.tie_embeddings:
    rest["head"] = {"kernel": arrays.floats(decoders.HF_HEAD, *table).T}
  arrays.tensors.pop(decoders.HF_HEAD, None)  # Some files repeat a tied head.
  if arrays.tensors:
    others = sorted(arrays.tensors)[:5]
    raise ValueError(f"the model has no place for the arrays {others}")
  return jax.tree.map(jnp.asarray, decoders.join(blocks, rest))


def _kernel(arrays, name, shape, kind, exact) -> np.ndarray | QTensor:
  d_in, d_out = shape
  if kind == "latent":
    return arrays.floats(f"{name}.weight", d_out, d_in).T
  data = arrays.bytes(f"{name}.weight", -(-d_out // 4), d_in)
  codes = decoders.hf_unpack(data)[:d_out]
  if codes.max() > 1:
    raise ValueError(f"{name}.weight has a byte that is no valid code")
  scale = _scale(arrays, f"{name}.weight_scale", kind, exact)
  return QTensor(jnp.asarray(codes.T), jnp.asarray(scale).reshape(1, 1))


def _scale(arrays, name, kind, exact) -> np.ndarray:
  """Returns the scale of the codes."""
  found = arrays.floats(name, 1)
  if not found[0] > 0:
    raise ValueError(f"{name} is {found[0]}, which is not positive")
  if kind == "autobitlinear":
    return found
  if name not in exact:
    return 1 / found
  # The reciprocal of a reciprocal may be off by a bit, so the file also has the
  # exact scale.
  scale = np.full(1, exact[name], np.float32)
  if 1 / scale != found:
    raise ValueError(f"{name} is not the reciprocal of its scale, {scale[0]}")
  return scale


def _check_ones(arrays, name, d_in):
  """Raises a ValueError if a layer's norm has weights other than one."""
  if np.any(arrays.floats(f"{name}.rms_norm.weight", d_in) != 1):
    raise ValueError(f"{name}.rms_norm has weights; only ones are read")
