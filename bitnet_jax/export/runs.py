"""Exports checkpoints of runs to other formats."""

import inspect
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.export import decoders, gguf, hf, stablehlo
from bitnet_jax.files import PathLike, local_path, new_folder
from bitnet_jax.inference.tensors import load_tensors, save_tensors
from bitnet_jax.programs import frozen
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import bucket, data_facts, warm_start, workdir
from bitnet_jax.train.folder.trained import load_model
from bitnet_jax.train.model import ModelSetup, TrainedModel

# The variant with latent weights instead of codes.
LATENT = "latent"
VARIANTS: dict[str, tuple[str, ...]] = {
  "packed": (),
  "hf": (*decoders.LINEAR_CLASSES, LATENT),
  "gguf": gguf.TYPES,
  "stablehlo": (),
  "safetensors": (),
}


def export_run(
  folder: PathLike,
  output: PathLike,
  form: str,
  checkpoint: str = "last",
) -> str:
  """Exports a checkpoint of a run to another format and checks the export.

  Args:
    folder: the run folder.
    output: a folder that is empty or absent.
    form: a key of ``VARIANTS``, optionally with a colon and a variant; the
      first variant is the default.
    checkpoint: "last", "best", or a step.

  Returns:
    A summary of the written files.

  Raises:
    FileExistsError: if ``output`` is not empty.
    ImportError: if a library is not installed.
    OSError: if the export reads back differently.
    ValueError: for an unknown format, a missing run or checkpoint, or a model
      that the format cannot hold, with the reasons.
  """
  folder = bucket.place(folder)
  output = local_path(output)
  name, variant = _parse(form, key="--format")
  if name == "packed":
    return frozen.freeze_run(folder, output, checkpoint).table()
  keep_compiled()
  with new_folder(output) as partial:
    found = load_model(folder, checkpoint)
    _WRITERS[name](found, partial, variant, folder.name)
    if name in ("safetensors", "stablehlo"):
      # Names of classes and statistics of inputs, which only a run knows.
      recorded = data_facts.Recorded(found.task.facts, None)
      data_facts.write(partial, recorded)
    if name == "safetensors":
      config = workdir.CONFIG_FILE
      shutil.copyfile(folder / config, partial / config)
    sizes = {file.name: file.stat().st_size for file in partial.iterdir()}
  return "\n".join(
    f"{size:>15,} {file}" for file, size in sorted(sizes.items())
  )


def check_export(experiment: Experiment, form: str) -> None:
  """Checks that the result of a run will be exportable, before the run.

  Exports the initial parameters to a temporary folder, as if they were those of
  the last step.

  Args:
    experiment: the run.
    form: as for ``export_run``.

  Raises:
    ImportError: if a library is not installed.
    ValueError: for an unknown format, or a model that it cannot hold, with the
      reasons.
  """
  key = "--check_export"
  name, variant = _parse(form, key=key)
  with experiment.activate():
    state = experiment.init()
  found = TrainedModel(
    **{f.name: getattr(experiment, f.name) for f in fields(ModelSetup)},
    variables={"params": state.params, **state.variables},
    tokenizer=experiment.data.tokenizer,
    step=experiment.total_steps,
  )
  with tempfile.TemporaryDirectory(prefix="bitnet_jax-") as folder:
    try:
      if name == "packed":
        frozen.freeze_model(found)
      else:
        _WRITERS[name](found, pathlib.Path(folder), variant, "model")
    except ValueError as error:
      raise ValueError(f"{key}={form}: {error}") from error


def _parse(form: str, *, key: str) -> tuple[str, str]:
  """Returns name and variant of a format."""
  name, colon, variant = form.partition(":")
  choices.check(name, VARIANTS, key=key)
  if colon:
    choices.check(variant, VARIANTS[name], key=f"{key}={name}:")
  elif VARIANTS[name]:
    variant = VARIANTS[name][0]
  return name, variant


def _write_hf(found, output, variant, name):
  del name
  if variant == LATENT:
    variables = {"params": found.variables["params"]}
    linear_class = decoders.LINEAR_CLASSES[0]
  else:
    variables = frozen.freeze_model(found).variables
    linear_class = variant
  hf.write_hf(
    output,
    found.model,
    variables,
    tokenizer=found.tokenizer,
    linear_class=linear_class,
  )


def _write_gguf(found, output, variant, name):
  found = frozen.freeze_model(found)
  gguf.write_gguf(
    output / f"model-{variant}.gguf",
    found.model,
    found.variables,
    tokenizer=found.tokenizer,
    kind=variant,
    name=name,
  )


def _write_stablehlo(found, output, variant, name):
  del variant, name
  if any(layer.recipe.weights is not None for layer in found.layers):
    found = frozen.freeze_model(found)
  inputs, options = _model_inputs(found)
  stablehlo.write_stablehlo(
    output, found.model, found.variables, inputs, **options
  )


def _write_safetensors(found, output, variant, name):
  """Writes parameters and other variables in bfloat16, by path."""
  del variant, name
  flat = warm_start.flatten(found.variables)
  tensors = {
    warm_start.name_of(path): leaf.astype(jnp.bfloat16)
    for path, leaf in flat.items()
  }
  path = output / "model.safetensors"
  save_tensors(tensors, path)
  again, _ = load_tensors(path)
  if again.keys() != tensors.keys() or not all(
    np.array_equal(again[name], tensors[name]) for name in tensors
  ):
    raise OSError(f"{path} reads back differently")


_WRITERS: dict[str, Callable[..., None]] = {
  "hf": _write_hf,
  "gguf": _write_gguf,
  "stablehlo": _write_stablehlo,
  "safetensors": _write_safetensors,
}


def _model_inputs(
  found: TrainedModel,
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
  """Returns the arguments that the task passes to its model for a batch.

  Returns:
    The arrays by name, and the other arguments by name, without those that only
    matter in training.
  """
  args, kwargs = found.task.inputs(_drawn_batch(found))
  call = inspect.signature(type(found.model).__call__)
  given = call.bind(found.model, *args, **kwargs).arguments
  # Only training computes a part of the logits.
  given = {n: x for n, x in given.items() if n not in ("self", "places")}
  arrays = {
    name: jnp.asarray(x)
    for name, x in given.items()
    if isinstance(x, jax.Array | np.ndarray)
  }
  return arrays, {n: x for n, x in given.items() if n not in arrays}


def _drawn_batch(found: TrainedModel) -> dict[str, np.ndarray]:
  """Returns a batch as training has it, with random numbers and ids."""
  facts, rng = found.task.facts, np.random.default_rng(0)
  rows = None if "nodes" in facts.example else found.settings.data.batch_size
  batch = {}
  for name, spec in facts.example.items():
    shape = spec.shape if rows is None else (rows, *spec.shape[1:])
    if spec.dtype == "float32":
      array = rng.random(shape)
    elif spec.dtype == "uint8":
      array = rng.integers(256, size=shape)
    elif name in ("tokens", "inputs") and facts.vocab_size:
      array = rng.integers(facts.vocab_size, size=shape)
    else:
      array = np.ones(shape)
    batch[name] = array.astype(spec.dtype)
  return batch
