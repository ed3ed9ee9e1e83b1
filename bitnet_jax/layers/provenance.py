"""Finds which axes of a stored kernel a layer sees, by tracing the model.

Transforms of Flax stack kernels along any axis. Some, such as ``nn.WeightNorm``
and ``nn.map_variables``, compute a layer's kernel from the stored one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import Literal

Axes = tuple[int, ...]
# Operations that return their operands unchanged.
_SAME = {
  "copy",
  "copy_p",
  "layout_constraint",
  "mesh_cast",
  "optimization_barrier",
  "pvary",
  "reshard",
  "sharding_constraint",
}


def mark(kernel: jax.Array, path: str) -> None:
  """Marks an array in a trace as the kernel of the layer at a path."""
  _mark(kernel, _name(path))


def axes_of_kernels(
  call: Callable[..., Any],
  variables: Mapping[str, Any],
  *args: Any,
  paths: Mapping[str, int],
) -> dict[str, Axes | None]:
  """Returns which axes of a stored kernel a layer sees.

  Args:
    call: runs a model with its variables and ``args``, and marks its kernels.
    variables: arrays or ``jax.ShapeDtypeStruct``, without boxes.
    *args: likewise.
    paths: of layers, with the number of axes of the kernels that they see.

  Returns:
    By path the axes, counted from the first; the others stack kernels. ``None``
    for a kernel that is computed from the stored one.
  """
  jaxpr = jax.make_jaxpr(call)(variables, *args).jaxpr
  names = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, _ in jax.tree_util.tree_leaves_with_path(variables)
  ]
  known = {
    variable: (name, tuple(range(len(variable.aval.shape))))
    for variable, name in zip(jaxpr.invars, names, strict=False)
  }
  found: dict[str, set[Any]] = {}
  _follow(jaxpr, known, found)
  return {
    path: _own_axes(found.get(_name(path), {None}), path, ndim)
    for path, ndim in paths.items()
  }


def _name(path):
  return f"kernel of {path!r}"


def _mark(kernel, name):
  """Marks a kernel; under ``jax.vmap`` all of them, along leading axes."""

  @jax.custom_batching.custom_vmap
  def one(kernel):
    return checkpoint_name(kernel, name)

  @one.def_vmap
  def several(size, batched, kernels):
    del size, batched
    return _mark(kernels, name), True

  return one(kernel)


def _own_axes(found, path, ndim):
  """Returns the layer's own axes, if they are the same in all calls."""
  stored = "/".join(filter(None, ("params", path, "kernel")))
  if any(one is None or one[0] != stored for one in found):
    return None
  own = {axes[len(axes) - ndim :] for _, axes in found}
  (axes,) = own if len(own) == 1 else (None,)
  return axes if axes is not None and list(axes) == sorted(axes) else None


def _follow(jaxpr, known, found):
  """Follows stored arrays through a program.

  Args:
    jaxpr: the program.
    known: by variable the name of the stored array that it is, and which axes
      of that array its axes are; completed here.
    found: by name of a mark the arrays that were marked, ``None`` for an array
      that is computed; completed here.

  Returns:
    The stored arrays that the results are, ``None`` for others.
  """

  def of(variable):
    return None if isinstance(variable, Literal) else known.get(variable)

  for equation in jaxpr.eqns:
    operands = [of(variable) for variable in equation.invars]
    results: list[Any] = [None] * len(equation.outvars)
    name, params = equation.primitive.name, equation.params
    if name == "name":
      found.setdefault(params["name"], set()).add(operands[0])
      results = operands
    elif name in _SAME and len(operands) == len(results):
      results = operands
    elif name == "transpose" and operands[0] is not None:
      stored, axes = operands[0]
      results = [(stored, tuple(axes[i] for i in params["permutation"]))]
    else:
      for inner, given in _inner(equation, operands):
        known_inside = dict(zip(inner.invars, given, strict=True))
        inside = _follow(inner, known_inside, found)
        if name not in ("scan", "while", "cond"):
          results = inside if len(inside) == len(results) else results
    known.update(zip(equation.outvars, results, strict=True))
  return [of(variable) for variable in jaxpr.outvars]


def _inner(equation, operands):
  """Returns the programs in an equation, and which arrays their inputs are."""
  name, params = equation.primitive.name, equation.params
  if name == "scan":
    program = params["jaxpr"].jaxpr
    # Releases of JAX name these counts differently, so they are told by shape:
    # a scanned operand has one axis less inside; a carry has the same shape.
    scanned = _with_another_axis(equation.invars, program.invars)
    made = _with_another_axis(equation.outvars, program.outvars)
    last, n = len(operands) - scanned, len(equation.outvars) - made
    stacked = [
      None if one is None else (one[0], one[1][1:]) for one in operands[last:]
    ]
    given = [*operands[: last - n], *[None] * n, *stacked]
    return [(program, given)]
  if name == "while":
    first, n = params["cond_nconsts"], params["body_nconsts"]
    carried = [None] * (len(operands) - first - n)
    given = operands[first : first + n]
    return [
      (params["cond_jaxpr"].jaxpr, [*operands[:first], *carried]),
      (params["body_jaxpr"].jaxpr, [*given, *carried]),
    ]
  if name == "cond":
    return [(b.jaxpr, operands[1:]) for b in params["branches"]]
  programs = [getattr(p, "jaxpr", p) for p in params.values()]
  return [
    (program, operands)
    for program in programs
    if len(getattr(program, "invars", ())) == len(operands)
    and hasattr(program, "eqns")
  ]


def _with_another_axis(outside, inside) -> int:
  """Returns how many variables have one axis more than inside a scan."""
  return sum(
    len(a.aval.shape) > len(b.aval.shape)
    for a, b in zip(outside, inside, strict=True)
  )
