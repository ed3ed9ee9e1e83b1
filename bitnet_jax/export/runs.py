"""Exports checkpoints of runs to other formats."""

import inspect
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import choices
from bitnet_jax.export import decoders, gguf, hf, stablehlo
from bitnet_jax.files import PathLike, local_path, new_folder
from bitnet_jax.inference.tensors import load_tensors, save_tensors
from bitnet_jax.programs import frozen
from bitnet_jax.train import runner
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.experiment import Experiment
from bitnet_jax.train.folder import bucket, warm_start, workdir

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
  name, colon, variant = form.partition(":")
  choices.check(name, VARIANTS, key="--format")
  if colon:
    choices.check(variant, VARIANTS[name], key=f"--format={name}:")
  elif VARIANTS[name]:
    variant = VARIANTS[name][0]
  if name == "packed":
    return frozen.freeze_run(folder, output, checkpoint).table()
  with new_folder(output) as partial:
    _WRITERS[name](folder, partial, checkpoint, variant)
    sizes = {file.name: file.stat().st_size for file in partial.iterdir()}
  return "\n".join(
    f"{size:>15,} {file}" for file, size in sorted(sizes.items())
  )


def _write_hf(folder, output, checkpoint, variant):
  if variant == LATENT:
    experiment, state = _load(folder, checkpoint)
    variables = {"params": state.params}
    linear_class = decoders.LINEAR_CLASSES[0]
  else:
    experiment, variables, _ = frozen.load_frozen_run(folder, checkpoint)
    linear_class = variant
  hf.write_hf(
    output,
    experiment.task.model,
    variables,
    tokenizer=experiment.data.tokenizer,
    linear_class=linear_class,
  )


def _write_gguf(folder, output, checkpoint, variant):
  experiment, variables, _ = frozen.load_frozen_run(folder, checkpoint)
  gguf.write_gguf(
    output / f"model-{variant}.gguf",
    experiment.task.model,
    variables,
    tokenizer=experiment.data.tokenizer,
    kind=variant,
    name=folder.name,
  )


def _write_stablehlo(folder, output, checkpoint, variant):
  del variant
  experiment, state = _load(folder, checkpoint)
  layers = experiment.layers
  variables: Mapping[str, Any] = {"params": state.params, **state.variables}
  if any(layer.recipe.weights is not None for layer in layers):
    variables = frozen.freeze_state(experiment, state, checkpoint).variables
  with experiment.activate():
    inputs, options = _model_inputs(experiment, variables)
  model = experiment.task.model
  stablehlo.write_stablehlo(output, model, variables, inputs, **options)


def _write_safetensors(folder, output, checkpoint, variant):
  """Writes parameters and other variables in bfloat16, by path."""
  del variant
  _, state = _load(folder, checkpoint)
  flat = warm_start.flatten({"params": state.params, **state.variables})
  tensors = {
    warm_start.name_of(path): leaf.astype(jnp.bfloat16)
    for path, leaf in flat.items()
  }
  path = output / "model.safetensors"
  save_tensors(tensors, path)
  found, _ = load_tensors(path)
  if found.keys() != tensors.keys() or not all(
    np.array_equal(found[name], tensors[name]) for name in tensors
  ):
    raise OSError(f"{path} reads back differently")
  shutil.copyfile(folder / workdir.CONFIG_FILE, output / workdir.CONFIG_FILE)


_WRITERS: dict[str, Callable[..., None]] = {
  "hf": _write_hf,
  "gguf": _write_gguf,
  "stablehlo": _write_stablehlo,
  "safetensors": _write_safetensors,
}


def _load(folder, checkpoint):
  keep_compiled()
  return runner.load_run(folder, checkpoint)


def _model_inputs(
  experiment: Experiment, variables: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
  """Returns the arguments that the task passes to its model for a batch.

  Returns:
    The arrays by name, and the other arguments by name, without those that only
    matter in training.
  """
  params = variables["params"]
  rest = {n: leaf for n, leaf in variables.items() if n != "params"}
  found: dict[str, Any] = {}

  def note(next_fun, args, kwargs, context):
    if not context.module.path and context.method_name == "__call__":
      call = inspect.signature(type(context.module).__call__)
      found.update(call.bind(context.module, *args, **kwargs).arguments)
    return next_fun(*args, **kwargs)

  def given(batch):
    with nn.intercept_methods(note):
      experiment.task.totals(
        params,
        rest,
        batch,
        key=jax.random.key(0),
        deterministic=True,
        strength=None,
      )
    # Only training computes a part of the logits.
    found.pop("places", None)
    return {n: x for n, x in found.items() if isinstance(x, jax.Array)}

  arrays = jax.jit(given)(experiment.data.train_batch(0))
  own = {*arrays, "self", "deterministic", "strength"}
  return arrays, {n: x for n, x in found.items() if n not in own}
