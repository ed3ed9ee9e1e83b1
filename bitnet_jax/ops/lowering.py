"""Which implementation of each operation runs: the one place that chooses.

An operation is a table of entries. The first that runs on the backend and
supports the operands is taken; the last is XLA's own, which supports all of
them. ``explain`` tells what a function takes, ``forced`` overrules the tables,
and ``portable`` leaves out what not every machine can run.
"""

import contextlib
import contextvars
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from bitnet_jax import backend, choices
from bitnet_jax.ops import xla, xla_conv
from bitnet_jax.ops.cpu import conv as cpu_conv
from bitnet_jax.ops.cpu import dot as cpu_dot
from bitnet_jax.ops.cpu import library
from bitnet_jax.ops.cpu import rows as cpu_rows
from bitnet_jax.ops.packing import unpack
from bitnet_jax.ops.tpu import packed_dot as tpu_packed_dot
from bitnet_jax.types import Packed

_portable: contextvars.ContextVar[bool] = contextvars.ContextVar(
  "portable", default=False
)
_forced: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar(
  "forced", default=types.MappingProxyType({})
)
_taken: contextvars.ContextVar[list[tuple[str, str]] | None] = (
  contextvars.ContextVar("taken", default=None)
)


def _anywhere(operands: Any) -> bool:
  del operands
  return True


def _on_cpu(operands: Any) -> bool:
  del operands
  return backend.current() == "cpu"


def _on_one_cpu(operands: Any) -> bool:
  del operands
  return backend.is_one_cpu()


def _with_kernels(operands: Any) -> bool:
  return _on_cpu(operands) and not _portable.get() and library.is_there()


def _with_kernels_alone(operands: Any) -> bool:
  """Not on several devices, in ``jax.shard_map``, or for any batch size."""
  return (
    backend.is_one_cpu()
    and _with_kernels(operands)
    and all(
      isinstance(n, int) for a in jax.tree.leaves(operands) for n in a.shape
    )
    and not jax.sharding.get_abstract_mesh().manual_axes
  )


def _on_tpu(operands: Any) -> bool:
  del operands
  return backend.current() == "tpu" and not _portable.get()


@dataclasses.dataclass(frozen=True)
class Entry:
  """One implementation of an operation.

  Attributes:
    name: for ``explain`` and ``forced``.
    run: takes operands and options of the operation.
    supports: of the same arguments, whether ``run`` takes these types and
      sizes, and is the faster for them.
    where: of the operands, whether ``run`` can run on the backend.
  """

  name: str
  run: Callable[..., Any]
  supports: Callable[..., bool] = lambda *operands, **options: True
  where: Callable[[Any], bool] = _anywhere

  @property
  def is_kernel(self) -> bool:
    """Whether this is a kernel, which not every machine can run."""
    return self.where in (_with_kernels, _with_kernels_alone, _on_tpu)

  def takes(self, operands: Any, options: Any) -> bool:
    """Whether this entry can run here, and supports the operands."""
    return self.supports(*operands, **options) and self.where(operands)


class Operation:
  """A table of entries; calling it runs the first that takes the operands.

  Attributes:
    name: of the operation.
    entries: by name, in order.
  """

  def __init__(self, name: str, *entries: Entry):
    self.name, self.entries = name, {entry.name: entry for entry in entries}

  def choose(self, *operands: Any, **options: Any) -> Entry:
    """Returns the entry that a call runs.

    Raises:
      ValueError: if one is forced that does not take the operands.
    """
    forced = _forced.get().get(self.name)
    if forced is None:
      return next(
        e for e in self.entries.values() if e.takes(operands, options)
      )
    if not self.entries[forced].takes(operands, options):
      shapes = jax.tree.map(jax.typeof, jax.tree.leaves(operands))
      raise ValueError(
        f"{self.name} must run {forced!r}, which does not take"
        f" {', '.join(map(str, shapes))} on {backend.current()}"
      )
    return self.entries[forced]

  def __call__(self, *operands: Any, **options: Any) -> Any:
    """Runs the entry; what is differentiated of a kernel, XLA computes."""
    entry = self.choose(*operands, **options)
    if (taken := _taken.get()) is not None:
      taken.append((self.name, entry.name))
    if not entry.is_kernel:
      return entry.run(*operands, **options)
    by_xla = next(
      e
      for e in self.entries.values()
      if not e.is_kernel and e.takes(operands, options)
    )
    runs = (functools.partial(e.run, **options) for e in (entry, by_xla))
    return _differentiable(*runs, *operands)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _differentiable(kernel, by_xla, *operands):
  del by_xla
  return kernel(*operands)


@_differentiable.defjvp
def _differentiable_jvp(kernel, by_xla, primals, tangents):
  del kernel
  return jax.jvp(by_xla, primals, tangents)


# Operands are the factors of a product; options say what its result is like.
DOT = Operation(
  "dot",
  Entry("padded row", cpu_dot.padded_row, cpu_dot.is_int8_row, _on_cpu),
  Entry("flat", cpu_dot.flat, where=_on_one_cpu),
  Entry("xla", xla.dot),
)
DOT_BY_INPUT = Operation(
  "dot_by_input",
  Entry("look-up", cpu_dot.look_up, cpu_dot.looks_up, _with_kernels_alone),
  Entry("dequantized", xla.dequantized_by_input, xla.is_scaled, _on_cpu),
  Entry("xla", xla.dot_by_input),
)
DOT_BY_WEIGHT = Operation(
  "dot_by_weight",
  Entry("integers", cpu_dot.sum_up, cpu_dot.sums_up, _with_kernels_alone),
  Entry("copied", cpu_dot.by_weight_copied, cpu_dot.copies, _on_one_cpu),
  Entry("flat", cpu_dot.by_weight_flat, where=_on_one_cpu),
  Entry("float32", xla.dot_by_weight, where=_on_cpu),
  Entry("xla", xla.dot_by_weight_like),
)


def _unpacked_dot(x: Array, w: Packed, **options: Any) -> Array:
  return DOT(x, unpack(w), **options)


PACKED_DOT = Operation(
  "packed_dot",
  Entry("tpu", tpu_packed_dot.run, tpu_packed_dot.supports, _on_tpu),
  Entry("registers", cpu_dot.packed, cpu_dot.is_packed_few, _with_kernels),
  Entry("row", cpu_dot.packed_row, cpu_dot.is_packed_row, _on_cpu),
  Entry("unpacked", _unpacked_dot),
)
CONV = Operation("conv", Entry("xla", xla_conv.conv))
CONV_BY_INPUT = Operation(
  "conv_by_input",
  Entry("look-up", cpu_conv.look_up, cpu_conv.looks_up, _with_kernels_alone),
  Entry("dequantized", xla_conv.dequantized_by_input, xla.is_scaled, _on_cpu),
  Entry("float32", xla_conv.by_input_in_float32, where=_on_cpu),
  Entry("xla", xla_conv.conv_by_input),
)
_taps = functools.partial(
  cpu_conv.by_dot_of_taps, dot_by_weight=DOT_BY_WEIGHT, copied=False
)
_copied_taps = functools.partial(_taps, copied=True)
CONV_BY_WEIGHT = Operation(
  "conv_by_weight",
  Entry("integers", cpu_conv.sum_up, cpu_conv.sums_up, _with_kernels_alone),
  Entry("copied taps", _copied_taps, cpu_conv.copies_taps, _on_one_cpu),
  Entry("taps", _taps, cpu_conv.is_wide, _on_cpu),
  Entry("grouped taps", xla_conv.by_grouped_tap, xla_conv.is_grouped),
  Entry("float32", xla_conv.by_weight_in_float32, where=_on_cpu),
  Entry("xla", xla_conv.conv_by_weight),
)
QUANTIZE_ROWS = Operation(
  "quantize_rows",
  Entry("one pass", cpu_rows.quantize, cpu_rows.quantizes, _with_kernels_alone),
  Entry("xla", xla.quantize_rows),
)
NORM_GRADIENT = Operation(
  "norm_gradient",
  Entry("one pass", cpu_rows.gradient, cpu_rows.suits, _with_kernels_alone),
  Entry("xla", xla.norm_gradient),
)
OPERATIONS = {
  operation.name: operation
  for operation in (
    *(DOT, DOT_BY_INPUT, DOT_BY_WEIGHT, PACKED_DOT),
    *(CONV, CONV_BY_INPUT, CONV_BY_WEIGHT, QUANTIZE_ROWS, NORM_GRADIENT),
  )
}


class Product(NamedTuple):
  """The operations of a product and of its gradients."""

  forward: Operation
  by_input: Operation
  by_weight: Operation


DOTS = Product(DOT, DOT_BY_INPUT, DOT_BY_WEIGHT)
CONVS = Product(CONV, CONV_BY_INPUT, CONV_BY_WEIGHT)


@contextlib.contextmanager
def portable() -> Iterator[None]:
  """Traces programs without kernels, for machines that have none.

  A function under ``jax.jit`` that was called before stays as it was traced,
  also under ``forced``.
  """
  token = _portable.set(True)
  try:
    yield
  finally:
    _portable.reset(token)


@contextlib.contextmanager
def forced(**entries: str) -> Iterator[None]:
  """Traces programs that run these entries of operations, by name.

  ``with forced(dot_by_weight="xla"):``; a call that the entry does not take
  is then a ValueError.

  Raises:
    ValueError: for an unknown operation or entry, with the choices.
  """
  for name, entry in entries.items():
    operation = choices.pick(OPERATIONS, name, key="operation")
    choices.check(entry, operation.entries, key=name)
  token = _forced.set({**_forced.get(), **entries})
  try:
    yield
  finally:
    _forced.reset(token)


def explain(function: Callable[..., Any], *args: Any) -> list[tuple[str, str]]:
  """Returns what a function would run: pairs of operation and entry.

  Traces it, and computes nothing. In order of tracing; what was traced under
  ``jax.jit`` before is not met again.

  Args:
    function: of arrays, such as ``jax.grad`` of a loss.
    *args: pytrees of arrays, or of ``jax.ShapeDtypeStruct``.
  """
  taken: list[tuple[str, str]] = []
  token = _taken.set(taken)
  try:
    jax.eval_shape(lambda *args: function(*args), *args)
  finally:
    _taken.reset(token)
  return taken
