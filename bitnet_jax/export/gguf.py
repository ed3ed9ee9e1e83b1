"""Exports decoders to GGUF files for llama.cpp.

With norms before the output projections the architecture is "bitnet", without
them "llama". Rows of ternary kernels are stored in blocks of 256 codes, each
with a scale in half precision: 1.69 bits a weight as "tq1_0", 2.06 as "tq2_0".
"bitnet" stores a float32 scale beside each kernel instead, and its blocks have
scale 1.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.export import decoders, gguf_vocabulary
from bitnet_jax.export.decoders import PROJECTIONS, Need
from bitnet_jax.files import PathLike, local_path
from bitnet_jax.inference.prompts import unboxed
from bitnet_jax.models.decoder import DecoderConfig
from bitnet_jax.types import QTensor

TYPES = ("tq2_0", "tq1_0", "f16")
BLOCK = 256  # codes that share a scale
_NAMES = {
  "attention_norm": "attn_norm",
  "attention/query": "attn_q",
  "attention/key": "attn_k",
  "attention/value": "attn_v",
  "attention/sub_norm": "attn_sub_norm",
  "attention/out": "attn_output",
  "feed_forward_norm": "ffn_norm",
  "feed_forward/gate": "ffn_gate",
  "feed_forward/up": "ffn_up",
  "feed_forward/sub_norm": "ffn_sub_norm",
  "feed_forward/down": "ffn_down",
}
_EMBEDDING, _FINAL_NORM, _HEAD = "token_embd", "output_norm", "output"


def write_gguf(
  path: PathLike,
  model: Any,
  variables: Mapping[str, Any],
  *,
  tokenizer: Tokenizer | None = None,
  kind: str = "tq2_0",
  name: str = "bitnet_jax",
) -> None:
  """Writes a frozen decoder to a GGUF file, reads it back, and compares.

  Args:
    path: path of the file, which must not exist.
    model: a decoder.
    variables: its frozen variables.
    tokenizer: its vocabulary; without one, the file takes and returns ids only.
    kind: type of the kernels, one of ``TYPES``. Embeddings and an untied output
      layer are in half precision.
    name: name of the model.

  Raises:
    FileExistsError: if the file exists.
    ImportError: if ``gguf`` is not installed.
    OSError: if the file reads back differently.
    ValueError: for a model that the format cannot hold, with the reasons.

  Example:
    >>> import jax
    >>> from bitnet_jax.models.decoder import Decoder, DecoderConfig
    >>> sizes = dict(hidden=256, num_layers=1, num_heads=2, num_kv_heads=2)
    >>> cfg = DecoderConfig(
    ...   **sizes, mlp_width=256, max_length=16, vocab_size=50
    ... )
    >>> model = Decoder(cfg, (("head", "float"), (".*", "bitnet_2b4t")))
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 4), int))
    >>> from bitnet_jax.export import write_gguf
    >>> from bitnet_jax.inference import freeze
    >>> write_gguf("exported/lm.gguf", model, freeze(variables, model))
  """
  path = local_path(path)
  choices.check(kind, TYPES, key="type")
  library = _library()
  decoders.check_decoder("gguf", model)
  variables = unboxed(variables)
  recipe, needs = decoders.recipe_needs(model, variables)
  architecture = decoders.architecture_needs(model.cfg)
  own = _needs(model.cfg, recipe, kind)
  decoders.refuse("gguf", [*architecture, *needs, *own])
  if path.exists():
    raise FileExistsError(f"{path} exists; choose another name")
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.partial")
  params = _rounded(model.cfg, variables["params"])
  try:
    _write(partial, model.cfg, params, tokenizer, kind, name)
    fields = library.GGUFReader(partial).fields
    if tokenizer is not None:
      gguf_vocabulary.check_read_back(path, fields, tokenizer)
    own = decoders.scanned_model(model.cfg, recipe)
    found = _read(partial, model.cfg)
    decoders.check_read_back(path, (own, params), (own, found))
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def _write(path, cfg: DecoderConfig, params, tokenizer, kind, name) -> None:
  library = _library()
  writer = library.GGUFWriter(
    None, "bitnet" if cfg.sub_norm else "llama", use_temp_file=False
  )
  _write_sizes(writer, cfg, name)
  gguf_vocabulary.write(writer, tokenizer, cfg.vocab_size, name)
  quantization = library.GGMLQuantizationType[kind.upper()]
  writer.add_file_type(library.LlamaFileType[f"MOSTLY_{kind.upper()}"])
  for tensor, array in _tensors(cfg, params):
    if array.ndim == 1:
      writer.add_tensor(tensor, np.asarray(array, np.float32))
    elif array.dtype == np.float16 or kind == "f16":
      writer.add_tensor(tensor, np.asarray(array, np.float16))
    else:
      data = library.quants.quantize(array, quantization)
      writer.add_tensor(tensor, data, raw_dtype=quantization)
  writer.write_header_to_file(path)
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def _library() -> Any:
  try:
    import gguf
  except ImportError as error:
    raise ImportError(
      "files of llama.cpp need gguf: pip install 'bitnet-jax[export]'"
    ) from error
  return gguf


def _needs(cfg: DecoderConfig, recipe, kind) -> Iterator[Need]:
  yield (
    cfg.feed_forward == "swiglu",
    f"model.feed_forward is {cfg.feed_forward!r}; llama.cpp has 'swiglu'",
  )
  yield (
    not cfg.sub_norm or cfg.tie_embeddings,
    "model.sub_norm is True and model.tie_embeddings False; with these norms,"
    " llama.cpp ties embeddings",
  )
  yield (
    recipe.norm is None,
    f"its recipe has the norm {recipe.norm!r} before each product, where"
    " llama.cpp has none; the recipe 'bitnet_2b4t' works, or quant.norm='none'",
  )
  acts = recipe.acts
  yield (
    acts is None or (acts.measure == "absmax" and acts.largest_code >= 127),
    "its inputs are rounded to fewer than 8 bits, which llama.cpp does not",
  )
  widths = {
    "model.hidden": cfg.hidden,
    "model.num_heads * head_dim": cfg.num_heads * cfg.features_of_head,
    "model.mlp_width": cfg.mlp_width,
  }
  for name, width in widths.items():
    below, rest = width // BLOCK * BLOCK, width % BLOCK
    near = f"{below} or {below + BLOCK}" if below else f"{BLOCK}"
    yield (
      kind == "f16" or not rest,
      f"{name} is {width}, and rows of {kind} are multiples of {BLOCK}: {near}"
      " works, or f16",
    )


def _rounded(cfg: DecoderConfig, params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns stacked parameters, rounded to the precision of the file."""
  params = decoders.scanned(params, cfg)

  def half(leaf):
    return jnp.float32(jnp.float16(leaf))

  def kernel(leaf):
    is_codes = isinstance(leaf, QTensor)
    if not is_codes or cfg.sub_norm:
      return leaf
    return dataclasses.replace(leaf, scale=half(leaf.scale))

  blocks = jax.tree.map(
    kernel, params["blocks"], is_leaf=lambda leaf: isinstance(leaf, QTensor)
  )
  tables = {n: params[n] for n in ("embed", "head") if n in params}
  return {**params, **jax.tree.map(half, tables), "blocks": blocks}


def _write_sizes(writer, cfg: DecoderConfig, name: str) -> None:
  head = cfg.features_of_head
  writer.add_name(name)
  writer.add_context_length(cfg.max_length)
  writer.add_embedding_length(cfg.hidden)
  writer.add_block_count(cfg.num_layers)
  writer.add_feed_forward_length(cfg.mlp_width)
  writer.add_head_count(cfg.num_heads)
  writer.add_head_count_kv(cfg.num_kv_heads)
  writer.add_key_length(head)
  writer.add_value_length(head)
  writer.add_layer_norm_rms_eps(cfg.norm_eps)
  writer.add_rope_dimension_count(head)
  writer.add_rope_freq_base(cfg.rotary_base)
  writer.add_vocab_size(cfg.vocab_size)


def _tensors(
  cfg: DecoderConfig, params: Mapping[str, Any]
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields names and arrays: kernels in float32, tables in half precision."""
  embedding = params["embed"]["tokens"]["embedding"]
  yield f"{_EMBEDDING}.weight", np.asarray(embedding, np.float16)
  yield f"{_FINAL_NORM}.weight", np.asarray(params["final_norm"]["scale"])
  if not cfg.tie_embeddings:
    yield f"{_HEAD}.weight", np.asarray(params["head"]["kernel"].T, np.float16)
  for i, block in enumerate(decoders.split(params, cfg)):
    for part in decoders.parts(cfg):
      name = f"blk.{i}.{_NAMES[part]}"
      if part not in PROJECTIONS:
        yield f"{name}.weight", block[f"{part}/scale"]
        continue
      kernel = block[f"{part}/kernel"]
      codes = np.asarray(kernel.codes, np.float32).T
      if cfg.sub_norm:
        yield f"{name}.weight", codes
        yield f"{name}.scale", np.asarray(kernel.scale).reshape(1)
      else:
        yield f"{name}.weight", _paired(cfg, part, codes * kernel.scale)


def _paired(
  cfg: DecoderConfig, part: str, rows: np.ndarray, *, back: bool = False
) -> np.ndarray:
  """Reorders rows for llama.cpp's rotary positions, or back.

  For "llama", llama.cpp rotates pairs of neighbours; this library rotates the
  first half of a head's features with the second half.
  """
  heads = {
    "attention/query": cfg.num_heads,
    "attention/key": cfg.num_kv_heads,
  }.get(part)
  if heads is None:
    return rows
  shape = (heads, -1, 2) if back else (heads, 2, rows.shape[0] // heads // 2)
  split = rows.reshape(*shape, rows.shape[-1])
  return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows.shape))


def _read(path: pathlib.Path, cfg: DecoderConfig) -> dict[str, Any]:
  """Returns the parameters in a file that ``write_gguf`` wrote."""
  library = _library()
  found = {
    tensor.name: library.quants.dequantize(tensor.data, tensor.tensor_type)
    for tensor in library.GGUFReader(path).tensors
  }
  blocks = []
  for i in range(cfg.num_layers):
    block = {}
    for part in decoders.parts(cfg):
      name = f"blk.{i}.{_NAMES[part]}"
      rows = found[f"{name}.weight"]
      if part not in PROJECTIONS:
        block[f"{part}/scale"] = rows
        continue
      scale = found.get(f"{name}.scale")
      if scale is None:
        rows = _paired(cfg, part, rows, back=True)
        scale = np.abs(rows).max()
        rows = np.sign(rows)
      codes = jnp.asarray(rows.T, jnp.int8)
      block[f"{part}/kernel"] = QTensor(codes, jnp.float32(scale).reshape(1, 1))
    blocks.append(block)
  rest: dict[str, Any] = {
    "embed": {"tokens": {"embedding": found[f"{_EMBEDDING}.weight"]}},
    "final_norm": {"scale": found[f"{_FINAL_NORM}.weight"]},
  }
  if not cfg.tie_embeddings:
    rest["head"] = {"kernel": found[f"{_HEAD}.weight"].T}
  return jax.tree.map(jnp.asarray, decoders.join(blocks, rest))
