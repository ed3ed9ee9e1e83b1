"""Sizes of the models of runs once they are frozen, without freezing them."""

import functools

import jax

from bitnet_jax.files import PathLike
from bitnet_jax.inference.freeze import freeze_kernels
from bitnet_jax.inference.size import stored_bytes
from bitnet_jax.train import model
from bitnet_jax.train.folder.trained import open_without_data


def frozen_bytes(folder: PathLike) -> int | None:
  """Returns the bytes on disk of a run's model, ternary kernels packed.

  A model in which nothing is quantized takes the bytes of its parameters.

  Args:
    folder: the workdir; only its config and the facts of its data are read.

  Returns:
    ``None`` for a run that has not recorded what its data decided, or whose
    kernels cannot be frozen.

  Raises:
    ValueError: if a file is damaged, naming it.
  """
  opened = open_without_data(folder)
  if opened is None:
    return None
  setup, _ = opened
  with setup.activate():
    variables = model.abstract_variables(setup)
  quantized = [layer for layer in setup.layers if layer.recipe.weights]
  if not all(layer.is_stored for layer in quantized):
    return None
  if quantized:
    freeze = functools.partial(freeze_kernels, setup.layers)
    params = jax.eval_shape(freeze, variables["params"])
    variables = {**variables, "params": params}
  return stored_bytes(variables)
