"""Exports decoders to the files of Hugging Face transformers.

The folder holds ``config.json``, ``model.safetensors`` and the vocabulary
files. With norms before the output projections it loads as
``BitNetForCausalLM``, the architecture of BitNet b1.58 2B4T, without them as
``LlamaForCausalLM``; both with the layers of ``quantization_config``.
"""

import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.text import saved
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.export import decoders
from bitnet_jax.export.hf_import import read_hf
from bitnet_jax.files import PathLike, local_path, write_atomically
from bitnet_jax.inference.prompts import unboxed
from bitnet_jax.inference.tensors import save_tensors
from bitnet_jax.ops.norm import NORM_EPS
from bitnet_jax.quantizers.recipe import RECIPES
from bitnet_jax.types import QTensor


def write_hf(
  folder: PathLike,
  model: Any,
  variables: Mapping[str, Any],
  *,
  tokenizer: Tokenizer | None = None,
  linear_class: str = "autobitlinear",
) -> None:
  """Writes a decoder for transformers, reads it back, and compares.

  Args:
    folder: output folder, created if needed; existing files are ignored.
    model: a decoder.
    variables: its variables. Frozen ones are written as packed codes; others as
      latent weights in bfloat16, which transformers rounds at each use.
    tokenizer: its vocabulary.
    linear_class: one of ``LINEAR_CLASSES``, for packed codes.

  Raises:
    ImportError: if ``safetensors`` is not installed.
    OSError: if the files read back differently.
    ValueError: for a model that the format cannot hold, with the reasons.

  Example:
    >>> import jax
    >>> from bitnet_jax.models.decoder import Decoder, DecoderConfig
    >>> sizes = dict(hidden=32, num_layers=1, num_heads=2, num_kv_heads=2)
    >>> cfg = DecoderConfig(
    ...   **sizes, mlp_width=32, max_length=16, vocab_size=50
    ... )
    >>> model = Decoder(cfg, (("head", "float"), (".*", "bitnet_2b4t")))
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 4), int))
    >>> from bitnet_jax.export import write_hf
    >>> from bitnet_jax.inference import freeze
    >>> write_hf("exported/lm", model, freeze(variables, model))
  """
  folder = local_path(folder)
  choices.check(linear_class, decoders.LINEAR_CLASSES, key="linear_class")
  decoders.check_decoder("hf", model)
  variables = unboxed(variables)
  recipe, needs = decoders.recipe_needs(model, variables)
  is_frozen = _is_frozen(variables)
  needs = [*decoders.architecture_needs(model.cfg), *needs]
  decoders.refuse("hf", [*needs, *_needs(model.cfg, recipe, is_frozen)])
  params = variables["params"]
  if not is_frozen:
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    linear_class = "autobitlinear"
  tensors, scales = _to_tensors(
    model.cfg,
    params,
    has_norm=recipe.norm is not None,
    is_reciprocal=linear_class == "bitlinear",
  )
  config = _config(model.cfg, recipe, linear_class, is_frozen=is_frozen)
  described = tokenizer and saved.describe(tokenizer)
  folder.mkdir(parents=True, exist_ok=True)
  if tokenizer is not None:
    config |= _write_vocabulary(
      folder, tokenizer, described, model.cfg.max_length
    )
  metadata = {"format": "pt"}
  if scales:
    metadata[decoders.EXACT_SCALES] = json.dumps(scales)
  save_tensors(tensors, folder / decoders.HF_TENSORS, metadata)
  write_atomically(
    folder / decoders.HF_CONFIG, json.dumps(config, indent=2) + "\n"
  )
  _check_read_back(folder, model.cfg, recipe, params)


def _is_frozen(variables) -> bool:
  def is_codes(leaf):
    return isinstance(leaf, QTensor)

  return any(map(is_codes, jax.tree.leaves(variables, is_leaf=is_codes)))


def _check_read_back(folder, cfg, recipe, params) -> None:
  """Raises an OSError unless the files hold the model."""
  # Scanned like the model that is read; unrolled, it sums in another order.
  own = decoders.scanned_model(cfg, recipe), decoders.scanned(params, cfg)
  found = read_hf(folder)
  decoders.check_read_back(
    folder, own, (found.model, found.variables["params"])
  )


def _needs(cfg, recipe, is_frozen):
  widths = {
    "model.hidden": cfg.hidden,
    "model.mlp_width": cfg.mlp_width,
    "num_heads * head_dim": cfg.num_heads * cfg.features_of_head,
    "num_kv_heads * head_dim": cfg.num_kv_heads * cfg.features_of_head,
  }
  for name, width in widths.items():
    yield width % 4 == 0, f"{name} is {width}, not a multiple of 4"
  acts = RECIPES["bitnet_2b4t"].acts
  yield (
    recipe.acts == acts,
    "its inputs are not rounded to -127..127 with one scale per token, as in"
    " the recipe 'bitnet_2b4t'",
  )
  yield (
    recipe.norm in (None, "rms_norm"),
    f"its recipe has the norm {recipe.norm!r} before each product;"
    " quant.norm='rms_norm' or the recipe 'bitnet_2b4t' works",
  )
  yield (
    is_frozen or recipe.weights == RECIPES["bitnet_2b4t"].weights,
    "its latent weights are not rounded by their mean, as in the recipe"
    " 'bitnet_2b4t'",
  )


def _to_tensors(cfg, params, *, has_norm, is_reciprocal):
  """Returns arrays by name, and exact scales if reciprocals are stored."""
  tensors = {
    decoders.HF_EMBEDDING: params["embed"]["tokens"]["embedding"],
    decoders.HF_FINAL_NORM: params["final_norm"]["scale"],
  }
  if not cfg.tie_embeddings:
    tensors[decoders.HF_HEAD] = params["head"]["kernel"].T
  scales = {}
  for i, block in enumerate(decoders.split(params, cfg)):
    for part, name in decoders.hf_names(cfg, i).items():
      if part not in decoders.PROJECTIONS:
        tensors[f"{name}.weight"] = block[f"{part}/scale"]
        continue
      kernel = block[f"{part}/kernel"]
      d_in = kernel.shape[0]
      if has_norm:
        tensors[f"{name}.rms_norm.weight"] = np.ones(d_in, np.float32)
      if not isinstance(kernel, QTensor):
        tensors[f"{name}.weight"] = kernel.T
        continue
      tensors[f"{name}.weight"] = decoders.hf_pack(np.asarray(kernel.codes).T)
      scale = kernel.scale.reshape(1)
      if is_reciprocal:
        scales[f"{name}.weight_scale"] = float(scale[0])
        scale = 1 / scale
      tensors[f"{name}.weight_scale"] = scale
  return {n: jnp.asarray(tensors[n]) for n in sorted(tensors)}, scales


def _config(cfg, recipe, linear_class, *, is_frozen) -> dict[str, Any]:
  own = {"model_type": "llama", "mlp_bias": False}
  own |= {"architectures": ["LlamaForCausalLM"]}
  if cfg.sub_norm:
    own = {"model_type": "bitnet", "architectures": ["BitNetForCausalLM"]}
  return {
    **own,
    "vocab_size": cfg.vocab_size,
    "hidden_size": cfg.hidden,
    "intermediate_size": cfg.mlp_width,
    "num_hidden_layers": cfg.num_layers,
    "num_attention_heads": cfg.num_heads,
    "num_key_value_heads": cfg.num_kv_heads,
    "head_dim": cfg.features_of_head,
    "hidden_act": decoders.HF_ACTIVATIONS[cfg.feed_forward],
    "max_position_embeddings": cfg.max_length,
    "rms_norm_eps": cfg.norm_eps,
    "rope_theta": cfg.rotary_base,
    "rope_parameters": {
      "rope_type": "default",
      "rope_theta": cfg.rotary_base,
    },
    "tie_word_embeddings": cfg.tie_embeddings,
    "attention_bias": False,
    "dtype": cfg.dtype,
    "torch_dtype": cfg.dtype,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "quantization_config": {
      "quant_method": "bitnet",
      "linear_class": linear_class,
      "quantization_mode": "offline" if is_frozen else "online",
      "modules_to_not_convert": ["lm_head"],
      "use_rms_norm": recipe.norm is not None,
      "rms_norm_eps": NORM_EPS,
    },
  }


def _write_vocabulary(
  folder, tokenizer, description, max_length
) -> dict[str, Any]:
  """Writes the vocabulary files and returns their entries of the config."""
  names = saved.names_of(description)
  # A text starts after the token that ends the previous text.
  ids = {
    "bos": tokenizer.eos_id,
    "eos": tokenizer.eos_id,
    "pad": tokenizer.pad_id,
    "unk": tokenizer.unk_id,
  }
  special = {
    f"{role}_token": names[token]
    for role, token in ids.items()
    if token is not None
  }
  rules = description["pre_tokenizer"] or {}
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    # As in training, the name of a special token in a text is plain text.
    "split_special_tokens": True,
    # Some versions use this instead of the vocabulary's own setting.
    "add_prefix_space": bool(rules.get("add_prefix_space")),
    "model_max_length": max_length,
    "clean_up_tokenization_spaces": False,
    **special,
  }
  for name, content in (
    ("tokenizer.json", description),
    ("tokenizer_config.json", settings),
    ("special_tokens_map.json", special),
  ):
    text = json.dumps(content, ensure_ascii=False, indent=2)
    write_atomically(folder / name, text + "\n")
  return {f"{role}_token_id": ids[role] for role in ("bos", "eos", "pad")}
