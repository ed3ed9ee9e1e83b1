"""Chooses the implementation of each operation.

An operation is a table of entries. The first entry that runs on the backend and
supports the operands is used. The last one is XLA's, which supports everything.
``explain`` lists the entries that a function uses, ``forced`` overrides the
choice, and ``portable`` excludes kernels, which not every machine can run.
"""

import contextlib
import contextvars
import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax

from bitnet_jax import backend, choices
from bitnet_jax.ops import attention, xla, xla_conv
from bitnet_jax.ops.cpu import conv as cpu_conv
from bitnet_jax.ops.cpu import dot as cpu_dot
from bitnet_jax.ops.cpu import kernels, library
from bitnet_jax.ops.tpu import packed_dot as tpu_packed_dot

_portable = contextvars.ContextVar[bool]("portable", default=False)
_forced = contextvars.ContextVar[Mapping[str, str]](
  "forced", default=types.MappingProxyType({})
)
_taken = contextvars.ContextVar[list[tuple[str, str]] | None](
  "taken", default=None
)


def _anywhere(operands: Any) -> bool:
  return True


def _on_cpu(operands: Any) -> bool:
  return backend.current() == "cpu"


def _on_one_cpu(operands: Any) -> bool:
  return backend.is_one_cpu()


def _with_kernels(operands: Any) -> bool:
  return _on_cpu(operands) and not _portable.get() and library.is_there()


def _with_kernels_alone(operands: Any) -> bool:
  """Not on several devices, in ``jax.shard_map``, or for any batch size."""
  arrays = jax.tree.leaves(operands)
  return (
    backend.is_one_cpu()
    and _with_kernels(operands)
    and all(isinstance(n, int) for array in arrays for n in array.shape)
    and not jax.sharding.get_abstract_mesh().manual_axes
  )


def _on_tpu(operands: Any) -> bool:
  return backend.current() == "tpu" and not _portable.get()


_NEED_KERNELS = (_with_kernels, _with_kernels_alone, _on_tpu)


@dataclasses.dataclass(frozen=True)
class Entry:
  """One implementation of an operation.

  Attributes:
    name: for ``explain`` and ``forced``.
    run: takes operands and options of the operation.
    supports: takes the same arguments; whether ``run`` takes these types and
      sizes, and is the fastest for them. Not asked where ``where`` is false.
    where: takes the operands; whether the backend can execute ``run``.
  """

  name: str
  run: Callable[..., Any]
  supports: Callable[..., bool] = lambda *operands, **options: True
  where: Callable[[Any], bool] = _anywhere

  @property
  def is_kernel(self) -> bool:
    """Whether this is a kernel, which not every machine can run."""
    return self.where in _NEED_KERNELS

  def takes(self, operands: Any, options: Any) -> bool:
    """Whether this entry can run here, and supports the operands."""
    return self.where(operands) and self.supports(*operands, **options)


class Operation:
  """A table of entries; calling it runs the first that takes the operands.

  Attributes:
    name: name of the operation.
    entries: by name, in order.
  """

  def __init__(self, name: str, *entries: Entry):
    self.name, self.entries = name, {entry.name: entry for entry in entries}

  def choose(self, *operands: Any, **options: Any) -> Entry:
    """Returns the entry that a call runs.

    Raises:
      ValueError: if one is forced that does not take the operands.
    """
    entries = self.entries.values()
    forced = _forced.get().get(self.name)
    if forced is None:
      return next(e for e in entries if e.takes(operands, options))
    if not self.entries[forced].takes(operands, options):
      shapes = ", ".join(str(jax.typeof(a)) for a in jax.tree.leaves(operands))
      raise ValueError(
        f"{self.name} must run {forced!r}, which does not take {shapes} on"
        f" {backend.current()}"
      )
    return self.entries[forced]

  def __call__(self, *operands: Any, **options: Any) -> Any:
    """Runs the entry; derivatives of a kernel are computed by XLA."""
    entry = self.choose(*operands, **options)
    if (taken := _taken.get()) is not None:
      taken.append((self.name, entry.name))
    if not entry.is_kernel:
      return entry.run(*operands, **options)
    others = (e for e in self.entries.values() if not e.is_kernel)
    by_xla = next(e for e in others if e.takes(operands, options))
    runs = (partial(e.run, **options) for e in (entry, by_xla))
    return _differentiable(*runs, *operands)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _differentiable(kernel, by_xla, *operands):
  return kernel(*operands)


@_differentiable.defjvp
def _differentiable_jvp(kernel, by_xla, primals, tangents):
  return jax.jvp(by_xla, primals, tangents)


def _dequantized(run):
  """Multiplies a float multiple of the codes; exact for ternary ones."""
  return lambda g, w, **options: run(g, w.dequantize(), **options)


# Operands are the factors of a product; options say what its result is like.
DOT = Operation(
  "dot",
  Entry("padded row", cpu_dot.padded_row, cpu_dot.is_int8_row, _on_cpu),
  Entry("flat", cpu_dot.flat, where=_on_one_cpu),
  Entry("xla", xla.dot),
)
_by_input = _dequantized(xla.dot_by_input)
DOT_BY_INPUT = Operation(
  "dot_by_input",
  Entry("look-up", cpu_dot.look_up, cpu_dot.looks_up, _with_kernels_alone),
  Entry("dequantized", _by_input, cpu_dot.is_scaled, _on_cpu),
  Entry("xla", xla.dot_by_input),
)
DOT_BY_WEIGHT = Operation(
  "dot_by_weight",
  Entry("integers", cpu_dot.sum_up, cpu_dot.sums_up, _with_kernels_alone),
  Entry("copied", cpu_dot.by_weight_copied, cpu_dot.is_copied, _on_one_cpu),
  Entry("flat", cpu_dot.by_weight_flat, where=_on_one_cpu),
  Entry("float32", xla.dot_by_weight, where=_on_cpu),
  Entry("xla", xla.dot_by_weight_like),
)
_few = partial(cpu_dot.is_packed, most=cpu_dot.MOST_PACKED_ROWS)
PACKED_DOT = Operation(
  "packed_dot",
  Entry("tpu", tpu_packed_dot.run, tpu_packed_dot.supports, _on_tpu),
  Entry("registers", cpu_dot.packed, _few, _with_kernels),
  Entry("row", cpu_dot.packed_row, cpu_dot.is_packed, _on_cpu),
  Entry("unpacked", lambda x, w, **options: DOT(x, w.unpack(), **options)),
)
CONV = Operation("conv", Entry("xla", xla_conv.conv))
_by_input = _dequantized(xla_conv.conv_by_input)
_float32 = partial(xla_conv.conv_by_input, in_float32=True)
CONV_BY_INPUT = Operation(
  "conv_by_input",
  Entry("look-up", cpu_conv.look_up, cpu_conv.looks_up, _with_kernels_alone),
  Entry("dequantized", _by_input, cpu_dot.is_scaled, _on_cpu),
  Entry("float32", _float32, where=_on_cpu),
  Entry("xla", xla_conv.conv_by_input),
)
_taps = partial(cpu_conv.by_tap, dot_by_weight=DOT_BY_WEIGHT, copied=False)
_copied_taps = partial(_taps, copied=True)
_float32 = partial(xla_conv.conv_by_weight, in_float32=True)
CONV_BY_WEIGHT = Operation(
  "conv_by_weight",
  Entry("integers", cpu_conv.sum_up, cpu_conv.sums_up, _with_kernels_alone),
  Entry("copied taps", _copied_taps, cpu_conv.is_copied_by_tap, _on_one_cpu),
  Entry("taps", _taps, cpu_conv.goes_by_tap, _on_cpu),
  Entry("grouped taps", xla_conv.by_grouped_tap, xla_conv.is_grouped),
  Entry("float32", _float32, where=_on_cpu),
  Entry("xla", xla_conv.conv_by_weight),
)
_quantizes, _in_float32 = kernels.quantizes_rows, kernels.takes_norm_gradient
QUANTIZE_ROWS = Operation(
  "quantize_rows",
  Entry("one pass", kernels.quantize_rows, _quantizes, _with_kernels_alone),
  Entry("xla", xla.quantize_rows),
)
NORM_GRADIENT = Operation(
  "norm_gradient",
  Entry("one pass", kernels.norm_gradient, _in_float32, _with_kernels_alone),
  Entry("xla", xla.norm_gradient),
)
_in_float32 = kernels.takes_query
ATTEND_CACHED = Operation(
  "attend_cached",
  Entry("in place", kernels.attend_cached, _in_float32, _with_kernels_alone),
  Entry("xla", attention.attend_cached),
)
OPERATIONS = {
  operation.name: operation
  for operation in (
    *(DOT, DOT_BY_INPUT, DOT_BY_WEIGHT, PACKED_DOT),
    *(CONV, CONV_BY_INPUT, CONV_BY_WEIGHT),
    *(QUANTIZE_ROWS, NORM_GRADIENT, ATTEND_CACHED),
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
def _setting(variable, value):
  token = variable.set(value)
  try:
    yield
  finally:
    variable.reset(token)


def portable() -> contextlib.AbstractContextManager[None]:
  """Traces programs without kernels, for other machines.

  Functions that ``jax.jit`` has already traced are not traced again; the same
  holds for ``forced``.
  """
  return _setting(_portable, value=True)


@contextlib.contextmanager
def forced(**entries: str) -> Iterator[None]:
  """Traces programs that run these entries of operations, by name.

  Under ``with forced(dot_by_weight="xla"):`` a call that the entry does not
  take is a ValueError.

  Raises:
    ValueError: for an unknown operation or entry, with the choices.
  """
  for name, entry in entries.items():
    operation = choices.pick(OPERATIONS, name, key="operation")
    choices.check(entry, operation.entries, key=name)
  with _setting(_forced, {**_forced.get(), **entries}):
    yield


def explain(function: Callable[..., Any], *args: Any) -> list[tuple[str, str]]:
  """Returns the pairs of operation and entry that a function would run.

  The function is traced, not computed. Parts that ``jax.jit`` has already
  traced are not listed.

  Args:
    function: function of arrays, such as ``jax.grad`` of a loss.
    *args: pytrees of arrays, or of ``jax.ShapeDtypeStruct``.
  """
  taken: list[tuple[str, str]] = []
  with _setting(_taken, taken):
    jax.eval_shape(lambda *args: function(*args), *args)
  return taken
