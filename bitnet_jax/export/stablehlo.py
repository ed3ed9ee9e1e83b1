"""Exports models as StableHLO programs, which run without Flax.

The folder holds ``model.jax`` for ``jax.export.deserialize``, ``model.mlirbc``,
the same program as portable bytecode for other runtimes, and ``model.json``,
which describes inputs and outputs. Parameters are constants of the program,
ternary ones packed. The output is the model's return value.
"""

import functools
import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import numpy as np

from bitnet_jax.files import PathLike, local_path, write_atomically
from bitnet_jax.inference.tensors import is_nnx_model
from bitnet_jax.ops import lowering

PROGRAM, BYTECODE, DESCRIPTION = "model.jax", "model.mlirbc", "model.json"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(
  folder: PathLike,
  model: Any,
  variables: Mapping[str, Any] | None,
  inputs: Mapping[str, Any],
  *,
  platforms: Sequence[str] = PLATFORMS,
  **options: Any,
) -> None:
  """Writes a model as a StableHLO program, reads it back, and compares.

  Args:
    folder: output folder, created if needed; existing files are ignored.
    model: any Linen or NNX module.
    variables: variables of the Linen module, frozen or not; ``None`` for an NNX
      module, which holds its own.
    inputs: example arrays of one call, by name. Their first axes may have any
      size in the program; axes of equal size here must be of equal size there.
    platforms: platforms that the program supports.
    **options: other arguments of the call, which become constants.

  Raises:
    ImportError: if ``flatbuffers`` is not installed.
    OSError: if the written program does not reproduce the outputs.
    ValueError: for a model that does not take inputs of any size.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> from bitnet_jax.export import write_stablehlo
    >>> net, x = nn.Sequential([BitDense(8)]), jax.numpy.ones((2, 4))
    >>> variables = net.init(jax.random.key(0), x)
    >>> write_stablehlo(
    ...   "exported/net", net, variables, {"inputs": x}, platforms=["cpu"]
    ... )
  """
  folder = local_path(folder)
  apply = _function(model, variables)

  def call(**inputs):
    return apply(**inputs, **options)

  _check_installed()
  jitted = jax.jit(call)
  try:
    with lowering.portable():
      exported = jax.export.export(jitted, platforms=platforms)(
        **_of_any_size(inputs)
      )
  except Exception as error:  # of several kinds, some of them private
    raise ValueError(
      f"{type(model).__name__} needs to know the sizes of its inputs: {error}"
    ) from error
  folder.mkdir(parents=True, exist_ok=True)
  (folder / PROGRAM).write_bytes(exported.serialize())
  (folder / BYTECODE).write_bytes(exported.mlir_module_serialized)
  content = _describe(exported, sorted(inputs))
  content["options"] = {name: str(value) for name, value in options.items()}
  text = json.dumps(content, indent=2) + "\n"
  write_atomically(folder / DESCRIPTION, text)
  _check(folder, jitted, inputs)


def _function(model, variables):
  """Returns the call of a model as a function of its inputs."""
  if is_nnx_model(model) != (variables is None):
    raise TypeError(
      f"{type(model).__name__} is given with variables"
      f" {type(variables).__name__}; a Linen module needs its variables, and an"
      " NNX module, which holds them, None"
    )
  if variables is not None:
    return functools.partial(model.apply, variables)
  from flax import nnx

  graph, state = nnx.split(model)
  return lambda **inputs: nnx.merge(graph, state, copy=True)(**inputs)


def _check_installed() -> None:
  """Raises an ImportError if JAX cannot write programs."""
  if importlib.util.find_spec("flatbuffers") is None:
    raise ImportError(
      "programs need flatbuffers: pip install 'bitnet-jax[export]'"
    )


def _of_any_size(inputs) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of inputs with a symbol for each size of first axes."""
  sizes = dict.fromkeys(x.shape[0] for x in inputs.values())
  letters = ["b", *(f"n{i}" for i in range(1, len(sizes)))]
  symbols = dict(zip(sizes, letters, strict=True))
  scope = jax.export.SymbolicScope()

  def symbolic(x):
    shape = ", ".join([symbols[x.shape[0]], *map(str, x.shape[1:])])
    shape = jax.export.symbolic_shape(shape, scope=scope)
    return jax.ShapeDtypeStruct(shape, x.dtype)

  return {name: symbolic(x) for name, x in inputs.items()}


def _describe(exported, names) -> dict[str, Any]:
  """Describes the inputs and outputs of a program, for ``model.json``."""

  def describe(aval):
    return {"shape": [str(n) for n in aval.shape], "dtype": str(aval.dtype)}

  inputs = [
    {"name": name, **describe(aval)}
    for name, aval in zip(names, exported.in_avals, strict=True)
  ]
  return {
    "inputs": inputs,
    "arguments_of_bytecode": [
      # The index of the platform in the list of platforms.
      *(["platform_index"] if len(exported.platforms) > 1 else []),
      *(inputs[i]["name"] for i in exported.module_kept_var_idx),
    ],
    "outputs": [describe(aval) for aval in exported.out_avals],
    "platforms": list(exported.platforms),
  }


def _check(folder, jitted, inputs):
  """Raises an OSError unless the program in the folder computes the same."""
  data = bytearray((folder / PROGRAM).read_bytes())
  found = jax.export.deserialize(data)
  ours = jax.tree.map(np.asarray, jitted(**inputs))
  theirs = jax.tree.map(np.asarray, jax.jit(found.call)(**inputs))
  same = jax.tree.map(np.array_equal, ours, theirs)
  if not all(jax.tree.leaves(same)):
    raise OSError(f"{folder / PROGRAM} does not reproduce the model's outputs")
