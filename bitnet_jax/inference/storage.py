"""Saves and loads frozen models: ``model.safetensors`` and ``model.json``.

The files are untrusted: nothing in them is executed, and all is checked.
"""

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bitnet_jax.files import open_regular, read_json, write_atomically
from bitnet_jax.inference import description
from bitnet_jax.inference.freeze import freeze
from bitnet_jax.inference.tensors import (
  LARGEST_TENSORS,
  Kernel,
  check_finite,
  flat,
  from_tensors,
  is_nnx_model,
  load_tensors,
  save_tensors,
  to_tensors,
)
from bitnet_jax.models.registry import example_call
from bitnet_jax.types import Packed, QTensor

DESCRIPTION, TENSORS = "model.json", "model.safetensors"
FORMAT = 1
_KEYS = {"format", "model", "kernels", "sha256", "record"}


class FrozenModel(NamedTuple):
  """A frozen model from a folder.

  Attributes:
    model: the module: of Linen, to be applied to the variables, or of NNX, with
      the variables in it.
    variables: its frozen variables.
    record: as given to ``save_frozen``.
  """

  model: Any
  variables: dict[str, Any]
  record: dict[str, Any]


def save_frozen(
  folder: str | pathlib.Path,
  variables: Any,
  model: nn.Module | None = None,
  record: Mapping[str, Any] | None = None,
) -> None:
  """Saves a frozen model, and checks that it reads back the same.

  Args:
    folder: created if it does not exist.
    variables: from ``freeze``; or a frozen NNX model.
    model: the Linen module. One that is not of this package is not saved, nor
      is an NNX model, and must be given to ``load_frozen``.
    record: JSON values to save with the model.

  Raises:
    FileExistsError: if the folder holds a model.
    TypeError: for variables without a Linen module.
    ValueError: for variables that are not frozen, not finite, or not those of
      the model.
    ImportError: if ``safetensors`` is not installed.
    OSError: if the files do not read back the same.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> from bitnet_jax.inference import freeze, save_frozen
    >>> net, x = nn.Sequential([BitDense(8)]), jax.numpy.ones((1, 4))
    >>> frozen = freeze(net.init(jax.random.key(0), x), net, x)
    >>> save_frozen("frozen/net", frozen, net)
  """
  folder = pathlib.Path(folder).expanduser()
  for name in (DESCRIPTION, TENSORS):
    if (folder / name).exists():
      raise FileExistsError(f"{folder / name} exists; choose another folder")
  tensors, kernels = to_tensors(variables)
  check_finite(tensors)
  described, given = _describe(variables, model)
  folder.mkdir(parents=True, exist_ok=True)
  partial = folder / f".{TENSORS}.partial"
  save_tensors(tensors, partial)
  content = {
    "format": FORMAT,
    "model": described,
    "kernels": {n: kernels[n].content() for n in sorted(kernels)},
    "sha256": _digest(partial),
    "record": dict(record or {}),
  }
  os.replace(partial, folder / TENSORS)
  write_atomically(folder / DESCRIPTION, json.dumps(content) + "\n")
  found, _ = to_tensors(load_frozen(folder, given).variables)
  if not _equal(found, tensors):
    raise OSError(f"{folder} was written, but reads differently")


def _describe(variables, model):
  """Returns the description of a model, and the model that a reader gives."""
  if is_nnx_model(variables):
    if model is not None:
      raise TypeError(
        "an NNX model holds its variables: save_frozen(folder, model)"
      )
    return None, variables
  if not isinstance(model, nn.Module):
    raise TypeError(
      f"model is a {type(model).__name__}, not a Linen module; variables are"
      " saved with their module: save_frozen(folder, variables, model)"
    )
  described = description.describe(model, variables["params"])
  if described is None:
    return None, model
  _check_fits(model, variables)
  return described, None


def load_frozen(folder: str | pathlib.Path, model: Any = None) -> FrozenModel:
  """Loads a frozen model from a folder of ``save_frozen``.

  Args:
    folder: with the files.
    model: the module, if it is not of this package: of Linen, or an NNX model
      with any values, also abstract from ``nnx.eval_shape``. Both read what
      either wrote, if their layers have the same paths.

  Raises:
    FileNotFoundError: if there is no model.
    TypeError: for a model that is no module.
    ValueError: for files that are damaged, have another format, or do not fit
      each other, saying what is wrong.
    ImportError: if ``safetensors`` is not installed.

  Example:
    >>> import flax.linen as nn
    >>> import jax
    >>> from bitnet_jax import BitDense
    >>> from bitnet_jax.inference import freeze, load_frozen, save_frozen
    >>> net, x = nn.Sequential([BitDense(8)]), jax.numpy.ones((1, 4))
    >>> frozen = freeze(net.init(jax.random.key(0), x), net, x)
    >>> save_frozen("frozen/mine", frozen, net)
    >>> found = load_frozen("frozen/mine", net)
    >>> found.model.apply(found.variables, x).shape
    (1, 8)
  """
  folder = pathlib.Path(folder).expanduser()
  if not (folder / DESCRIPTION).exists():
    raise FileNotFoundError(
      f"there is no frozen model in {folder}: it has no {DESCRIPTION}, which"
      " save_frozen writes"
    )
  is_nnx = model is not None and is_nnx_model(model)
  if not (is_nnx or model is None or isinstance(model, nn.Module)):
    raise TypeError(
      f"model is a {type(model).__name__}, neither a Linen nor an NNX module"
    )
  content = _read_description(folder / DESCRIPTION)
  tensors = _read_tensors(folder / TENSORS, content["sha256"])
  try:
    variables = from_tensors(tensors, _kernels(content["kernels"]))
    if model is None:
      leaves = flat(variables).values()
      model = description.build(
        content["model"],
        largest=sum(math.prod(leaf.shape) for leaf in leaves),
        arrays=len(leaves),
      )
      _check_fits(model, variables)
    elif is_nnx:
      model = _fill(model, variables)
  except (AttributeError, RecursionError, TypeError, ValueError) as error:
    raise ValueError(f"{folder}: {error}") from error
  return FrozenModel(model, variables, content["record"])


def _read_description(path):
  content = read_json(path)
  if content.keys() != _KEYS:
    raise ValueError(
      f"{path} is not the description of a frozen model, which has the keys"
      f" {', '.join(sorted(_KEYS))}"
    )
  if content["format"] != FORMAT:
    raise ValueError(
      f"{path} has the format {content['format']!r}, not {FORMAT}, which is"
      " what this version reads"
    )
  return content


def _read_tensors(path, sha256):
  if _digest(path) != sha256:
    raise ValueError(
      f"{path} is damaged: it is not the file that {DESCRIPTION} describes"
    )
  tensors, _ = load_tensors(path)
  return tensors


def _kernels(entries):
  kernels = {}
  for name, entry in entries.items():
    try:
      kernels[name] = Kernel(**entry)
    except (TypeError, ValueError) as error:
      raise ValueError(f"{DESCRIPTION}, kernel {name}: {error}") from error
  return kernels


def _digest(path):
  with open_regular(path, most=LARGEST_TENSORS) as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _check_fits(model, variables):
  """Raises a ValueError unless the variables are those of the model, frozen."""
  try:
    args, kwargs = example_call(model, variables["params"])
    fresh = jax.eval_shape(
      lambda args: nn.unbox(model.init(jax.random.key(0), *args, **kwargs)),
      args,
    )
    expected = jax.eval_shape(lambda fresh: freeze(fresh, model), fresh)
  except (AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
    raise ValueError(f"they do not fit the model: {error!r}") from error
  _check_same(_forms(variables), _forms(expected))


def _fill(model, variables):
  """Returns a frozen copy of an NNX model with variables from a file."""
  from bitnet_jax.nnx import introspection

  kernels = {
    f"params/{path}/kernel".replace("//", "/")
    for path, layer in introspection.find_layers(model).items()
    if layer.recipe.weights is not None
  }
  # The stacked axes, and so the scales, of an own model are not known.
  found, expected = flat(variables), flat(model)
  _check_same(
    {n: _form(leaf, isinstance(leaf, QTensor)) for n, leaf in found.items()},
    {n: _form(leaf, n in kernels) for n, leaf in expected.items()},
  )
  for name in kernels:
    codes, scale = found[name].shape, found[name].scale.shape
    pairs = zip(scale, codes, strict=False)
    if len(scale) != len(codes) or any(n not in (1, of) for n, of in pairs):
      raise ValueError(
        f"{name} has codes {[*codes]}, and scales {[*scale]} that do not fit"
      )
  filled = introspection.frozen_like(model, variables)
  introspection.check_concrete(filled)
  return filled


def _form(leaf, has_codes):
  """Returns kind and shape of an array as text."""
  return f"{'codes' if has_codes else leaf.dtype} {[*leaf.shape]}"


def _check_same(found, wanted):
  """Raises a ValueError that lists variables of another form."""
  different = [
    f"{name} is {found.get(name, 'not there')}, not"
    f" {wanted.get(name, 'expected')}"
    for name in sorted(found.keys() | wanted.keys())
    if found.get(name) != wanted.get(name)
  ]
  if different:
    raise ValueError(
      f"the variables do not fit the model: {'; '.join(different[:5])}"
    )


def _forms(variables):
  """Returns dtype and shape of each variable as text."""
  found = {}
  for name, leaf in flat(variables).items():
    if isinstance(leaf, QTensor):
      kind = "ternary" if isinstance(leaf.qvalue, Packed) else "int8"
      scale = [*leaf.scale.shape]
      found[name] = f"{kind} codes {[*leaf.shape]} with scales {scale}"
    else:
      found[name] = f"{leaf.dtype}{[*leaf.shape]}"
  return found


def _equal(a, b):
  return a.keys() == b.keys() and all(
    a[name].dtype == b[name].dtype and bool(jnp.array_equal(a[name], b[name]))
    for name in a
  )
