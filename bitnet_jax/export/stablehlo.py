"""Models as StableHLO, which runs without Flax and without us.

A folder with ``model.jax``, for ``jax.export.deserialize``, ``model.mlirbc``,
the same as portable bytecode for other runtimes, and ``model.json``, which says
what goes in and comes out. Parameters are constants of the program, ternary
ones packed; its one output is what the model returns.
"""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import numpy as np

from bitnet_jax.files import PathLike, local_path, write_atomically
from bitnet_jax.ops import kernels

PROGRAM, BYTECODE, DESCRIPTION = "model.jax", "model.mlirbc", "model.json"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(
  folder: PathLike,
  model: Any,
  variables: Mapping[str, Any],
  inputs: Mapping[str, Any],
  *,
  platforms: Sequence[str] = PLATFORMS,
  **options: Any,
) -> None:
  """Writes a model as a program, reads it back, and compares.

  Args:
    folder: made if it is not there; files in it are not looked at.
    model: any Linen module.
    variables: of it, frozen or not.
    inputs: arrays of one call, by name. Their first axes may have any size in
      the program; those of one size here must be of one size there too.
    platforms: on which the program shall run.
    **options: of the call, which become part of the program.

  Raises:
    ImportError: if ``flatbuffers`` is not installed.
    OSError: if what was written computes something else.
    ValueError: for a model that does not take inputs of any size.
  """
  folder = local_path(folder)

  def call(**inputs):
    return model.apply(variables, **inputs, **options)

  _check_installed()
  jitted = jax.jit(call)
  try:
    with kernels.portable():
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


def _check_installed() -> None:
  """Raises an ImportError without what JAX needs to write programs."""
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
  """Returns what goes into a program and comes out; names are in order."""

  def describe(aval):
    return {"shape": [str(n) for n in aval.shape], "dtype": str(aval.dtype)}

  inputs = [
    {"name": name, **describe(aval)}
    for name, aval in zip(names, exported.in_avals, strict=True)
  ]
  return {
    "inputs": inputs,
    "arguments_of_bytecode": [
      # Which of the platforms it is, by its place among them.
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
    raise OSError(f"{folder / PROGRAM} was written, but computes otherwise")
