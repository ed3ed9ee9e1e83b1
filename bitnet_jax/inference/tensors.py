"""Frozen variables as named arrays, and safetensors files.

A frozen kernel becomes two arrays: its codes, ternary ones in the layout
"base3", five to a byte, and its scale.
"""

import dataclasses
import functools
import math
import stat
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from bitnet_jax import choices
from bitnet_jax.files import PathLike, local_path, open_regular
from bitnet_jax.ops.packing import (
  LAYOUTS,
  axis_to_pack,
  pack,
  pack_along,
  unpack,
)
from bitnet_jax.types import Packed, QTensor

CODES, SCALE = ".codes", ".scale"
TERNARY, OTHERS = "base3", "int8"
# Most bytes of the list of arrays in a file: some 40,000 arrays.
LARGEST_HEADER = 2**22
LARGEST_TENSORS = 2**37  # Most bytes of a file.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
  """How a file stores the codes of a kernel.

  Attributes:
    shape: shape of the kernel.
    layout: "base3" for ternary codes, in one row, or "int8".
    axis: the axis of ternary codes that is packed in memory; ``None`` for the
      default of that shape.
  """

  shape: tuple[int, ...]
  layout: str
  axis: int | None = None

  def __post_init__(self):
    choices.check(self.layout, (TERNARY, OTHERS), key="layout")
    object.__setattr__(self, "shape", tuple(self.shape))
    sizes_of_axes = all(isinstance(n, int) and n > 0 for n in self.shape)
    if len(self.shape) < 2 or not sizes_of_axes:
      raise ValueError(f"shape is {self.shape}; that is no kernel's")
    if self.axis is not None:
      ndim = len(self.shape)
      choices.check(self.axis, range(-ndim, ndim), key="axis")

  @classmethod
  def of(cls, q: QTensor) -> "Kernel":
    """Returns how a file stores this frozen kernel."""
    if not isinstance(q.qvalue, Packed):
      return cls(shape=q.shape, layout=OTHERS)
    axis = q.qvalue.axis
    usual = _usual_axis(q.shape)
    return cls(
      shape=q.shape, layout=TERNARY, axis=None if axis == usual else axis
    )

  def content(self) -> dict[str, Any]:
    """Returns the attributes for JSON, without those that are ``None``."""
    found = dataclasses.asdict(self).items()
    return {name: value for name, value in found if value is not None}

  @property
  def stored(self) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of the array of codes."""
    if self.layout == OTHERS:
      return self.shape, jnp.int8
    length = -(-math.prod(self.shape) // LAYOUTS[TERNARY].codes)
    return (length,), jnp.uint8


def flat(variables: Any) -> dict[str, Any]:
  """Returns the leaves by slash-joined path, frozen kernels among them.

  Args:
    variables: of a Linen model, or an NNX model.
  """
  variables = as_variables(variables)
  return dict(traverse_util.flatten_dict(dict(variables), sep="/"))


def as_variables(variables: Any) -> Any:
  """Returns the variables of an NNX model, or variables as they are."""
  if not is_nnx_model(variables):
    return variables
  from bitnet_jax.nnx import linen_variables

  return linen_variables(variables)


def is_nnx_model(model: Any) -> bool:
  """Whether this is an NNX module."""
  if isinstance(model, Mapping | nn.Module):
    return False
  # Imported here: it loads optax, which Linen models do not need.
  from flax import nnx

  return isinstance(model, nnx.Module)


def to_tensors(
  variables: Any,
) -> tuple[dict[str, jax.Array], dict[str, Kernel]]:
  """Returns variables as arrays by name, and how kernels are stored in them.

  Args:
    variables: see ``flat``.

  Raises:
    ValueError: if nothing is frozen.
  """
  tensors: dict[str, jax.Array] = {}
  kernels: dict[str, Kernel] = {}
  for name, leaf in flat(variables).items():
    if not isinstance(leaf, QTensor):
      tensors[name] = jnp.asarray(leaf)
      continue
    kernels[name] = Kernel.of(leaf)
    is_ternary = isinstance(leaf.qvalue, Packed)
    tensors[name + CODES] = _to_row(leaf) if is_ternary else leaf.codes
    tensors[name + SCALE] = leaf.scale
  check_frozen(kernels)
  return tensors, kernels


def check_frozen(kernels: Mapping[str, Any]) -> None:
  """Raises a ValueError if there are no frozen kernels."""
  if not kernels:
    raise ValueError("the variables hold no frozen kernel; freeze them first")


def from_tensors(
  tensors: Mapping[str, jax.Array], kernels: Mapping[str, Kernel]
) -> dict[str, Any]:
  """Returns variables from the arrays of ``to_tensors``.

  Raises:
    ValueError: for arrays that are missing, have another shape or dtype than
      the kernel, or hold no valid codes or scale.
  """
  rest, leaves = dict(tensors), {}
  for name, kernel in kernels.items():
    for end in (CODES, SCALE):
      if name + end not in rest:
        raise ValueError(f"{name + end} is not there")
    codes, scale = rest.pop(name + CODES), rest.pop(name + SCALE)
    if (codes.shape, codes.dtype) != kernel.stored:
      shape, dtype = kernel.stored
      raise ValueError(
        f"{name + CODES} is {codes.dtype}{[*codes.shape]}, not"
        f" {jnp.dtype(dtype)}{[*shape]}, which a kernel {[*kernel.shape]} needs"
      )
    if scale.dtype != jnp.float32 or not bool(jnp.all(scale > 0)):
      raise ValueError(f"{name + SCALE} is not positive float32")
    if kernel.layout == TERNARY:
      layout = LAYOUTS[TERNARY]
      if int(codes.max()) >= layout.base**layout.codes:
        raise ValueError(f"{name + CODES} holds a byte that is no codes")
      codes = _from_row(codes, kernel.shape, kernel.axis)
    leaves[name] = QTensor(codes, scale)
  return traverse_util.unflatten_dict(rest | leaves, sep="/")


@jax.jit
def _to_row(q: QTensor) -> jax.Array:
  """Packs codes as one row, which is padded at its end only."""
  return pack(q.codes.reshape(-1), TERNARY).data


@functools.partial(jax.jit, static_argnums=(1, 2))
def _from_row(
  data: jax.Array, shape: tuple[int, ...], axis: int | None
) -> Packed:
  """Returns the codes of a row as ``freeze`` packs them."""
  row = Packed(data, math.prod(shape), -1, TERNARY)
  axis = _usual_axis(shape) if axis is None else axis
  return pack_along(unpack(row).reshape(shape), axis)


def _usual_axis(shape: tuple[int, ...]) -> int:
  """Returns the packed axis of a kernel that is not stacked."""
  axis = axis_to_pack(shape)
  assert axis is not None
  return axis - len(shape)


def check_finite(tensors: Mapping[str, jax.Array]) -> None:
  """Raises a ValueError that names an array with NaN or infinity."""
  for name, tensor in tensors.items():
    floats = jnp.issubdtype(tensor.dtype, jnp.floating)
    if floats and not bool(jnp.all(jnp.isfinite(tensor))):
      raise ValueError(f"{name} holds values that are not finite")


def save_tensors(
  tensors: Mapping[str, jax.Array],
  path: PathLike,
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes a safetensors file.

  Raises:
    ImportError: if ``safetensors`` is not installed.
    ValueError: for values that are not finite.
  """
  path = local_path(path)
  safetensors = _safetensors()
  check_finite(tensors)
  # The library makes files that only their owner can read.
  path.touch()
  mode = stat.S_IMODE(path.stat().st_mode)
  safetensors.flax.save_file(
    dict(tensors), path, None if metadata is None else dict(metadata)
  )
  path.chmod(mode)


def load_tensors(
  path: PathLike,
) -> tuple[dict[str, jax.Array], dict[str, str]]:
  """Reads the arrays and the metadata of a safetensors file.

  Raises:
    FileNotFoundError: if there is none.
    ImportError: if ``safetensors`` is not installed.
    ValueError: if it is damaged, its header has more than ``LARGEST_HEADER``
      bytes, or it holds values that are not finite.
  """
  path = local_path(path)
  safetensors = _safetensors()
  with open_regular(path, most=LARGEST_TENSORS) as file:
    header = int.from_bytes(file.read(8), "little")
  if header > LARGEST_HEADER:
    raise ValueError(f"{path} has a header of {header} bytes, or is damaged")
  try:
    with safetensors.safe_open(path, framework="flax") as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}
      metadata = file.metadata() or {}
    check_finite(tensors)
  except (
    safetensors.SafetensorError,
    KeyError,
    MemoryError,
    TypeError,
    ValueError,
  ) as error:
    raise ValueError(f"{path} is damaged: {error}") from error
  return tensors, metadata


def _safetensors() -> Any:
  """Returns the library, or raises an ImportError that says what to install."""
  try:
    import safetensors.flax
  except ImportError as error:
    raise ImportError(
      "files of models need safetensors: pip install 'bitnet-jax[export]'"
    ) from error
  return safetensors
