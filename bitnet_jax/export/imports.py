"""Imports decoders from Hugging Face transformers."""

import dataclasses
import hashlib
import json
import math
import pathlib
import shutil
from typing import Any

import jax.numpy as jnp
from absl import logging

from bitnet_jax.data.text.saved import save_vocabulary
from bitnet_jax.data.text.tokenizers import Tokenizer, load_tokenizer
from bitnet_jax.export import decoders
from bitnet_jax.export.hf_import import HfModel, read_hf
from bitnet_jax.files import (
  PathLike,
  local_path,
  new_folder,
  open_regular,
  read_json,
)
from bitnet_jax.inference.storage import save_frozen
from bitnet_jax.inference.tensors import LARGEST_TENSORS, flat
from bitnet_jax.train.folder import workdir
from bitnet_jax.train.folder.checkpoint import (
  CheckpointOptions,
  Checkpoints,
  Progress,
)
from bitnet_jax.train.state import TrainState

# Vocabulary files and their loaders, in order of preference.
_VOCABULARIES = {
  "tokenizer.json": "tokenizers",
  "tokenizer.model": "sentencepiece",
}


def import_hf(source: PathLike, output: PathLike) -> str:
  """Converts a decoder of transformers to a model of this library.

  Packed codes become a frozen model, for generate.py and ``load_frozen``.
  Latent or full-precision weights become a checkpoint for the config key
  ``init_from``.

  Args:
    source: folder with ``config.json`` and ``model.safetensors``; optionally
      with a vocabulary, ``tokenizer.json`` or ``tokenizer.model``, and with
      ``generation_config.json``, which names the end tokens.
    output: a folder that is empty or absent.

  Returns:
    A summary of the model.

  Raises:
    FileExistsError: if ``output`` is not empty.
    FileNotFoundError: if a file is missing.
    ImportError: if a library is not installed.
    ValueError: for damaged files and unsupported models, with the reason.
  """
  source = local_path(source)
  output = local_path(output)
  with new_folder(output) as partial:
    found = read_hf(source)
    spec, tokenizer = _find_vocabulary(source)
    if tokenizer and tokenizer.vocab_size > found.model.cfg.vocab_size:
      raise ValueError(
        f"{spec} has {tokenizer.vocab_size} tokens, more than the model, which"
        f" has {found.model.cfg.vocab_size}"
      )
    record: dict[str, Any] = {"imported": source.name}
    if found.is_frozen:
      record |= _ids(source, found.model.cfg.vocab_size)
      if tokenizer:
        record["tokenizer"] = save_vocabulary(
          tokenizer, spec, partial, cache=partial
        )
      save_frozen(partial, found.variables, found.model, record)
    else:
      name = f"import {_digest(source)}"
      _save_checkpoint(partial, found, name, spec, tokenizer)
  leaves = flat(found.variables).values()
  count = f"{sum(math.prod(leaf.shape) for leaf in leaves):,} parameters"
  sizes = json.dumps(dataclasses.asdict(found.model.cfg))
  kind = "frozen model" if found.is_frozen else "checkpoint for init_from"
  return f"{kind}, {count}: {sizes}"


def _ids(source: pathlib.Path, vocab_size: int) -> dict[str, Any]:
  """Returns the ids that begin and end texts, from the configs.

  Several tokens may end a text; their order is kept. As in transformers,
  ``generation_config.json`` takes precedence over ``config.json``.
  """
  said = read_json(source / decoders.HF_CONFIG)
  if (source / decoders.HF_GENERATION).exists():
    more = read_json(source / decoders.HF_GENERATION)
    said |= {key: value for key, value in more.items() if value is not None}
  ids: dict[str, Any] = {}
  for name, key in (("first_id", "bos_token_id"), ("stop_id", "eos_token_id")):
    found = said.get(key)
    several = found if isinstance(found, list) else [found]
    known = [i for i in several if _is_id(i, vocab_size)]
    if len(known) < len(several) and found is not None:
      logging.warning(
        "%s: %s is %s; the model generates ids in 0..%d, so %s remain",
        *(source, key, found, vocab_size - 1, known or "none"),
      )
    if known:
      is_one = name == "first_id" or len(known) == 1
      ids[name] = known[0] if is_one else known
  return ids


def _is_id(token: Any, vocab_size: int) -> bool:
  is_whole = isinstance(token, int) and not isinstance(token, bool)
  return is_whole and 0 <= token < vocab_size


def _find_vocabulary(source) -> tuple[str, Tokenizer | None]:
  """Returns the tokenizer spec and the vocabulary in a folder."""
  for name, kind in _VOCABULARIES.items():
    if (source / name).exists():
      spec = f"{kind}:{source / name}"
      return spec, load_tokenizer(spec, texts=tuple)
  return "", None


def _digest(source: pathlib.Path) -> str:
  """Returns a hash of the arrays in a folder."""
  digest = hashlib.sha256()
  for path in sorted(source.glob("*.safetensors")):
    with open_regular(path, most=LARGEST_TENSORS) as file:
      digest.update(hashlib.file_digest(file, "sha256").digest())
  return f"sha256:{digest.hexdigest()}"


def _save_checkpoint(
  folder: pathlib.Path,
  found: HfModel,
  fingerprint: str,
  spec: str,
  tokenizer: Tokenizer | None,
) -> None:
  """Writes a run folder that ``init_from`` can read."""
  options = CheckpointOptions(
    keep_last=2, keep_best=0, metric="valid/loss", mode="min"
  )
  if tokenizer:
    path = pathlib.Path(spec.partition(":")[2])
    shutil.copyfile(path, folder / path.name)
    fingerprint += f" vocabulary {tokenizer.fingerprint}"
  config = {
    "model": {"name": "decoder", **dataclasses.asdict(found.model.cfg)},
    "data": {},
    "checkpoint": dataclasses.asdict(options),
  }
  workdir.write_config(folder, config, fingerprint)
  params: Any = found.variables["params"]
  state = TrainState(jnp.int32(0), params, (), {})
  checkpoints = Checkpoints.of_run(folder, options)
  checkpoints.save(0, state, progress=Progress(), metrics={})
  checkpoints.wait()
