"""Counts the operations of a program's products before it is compiled."""

import collections
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

Flops = dict[str, float]


def count(function: Callable[..., Any], *args: Any) -> Flops:
  """Counts the operations of all products of a function.

  A multiplication and an addition are two operations. A loop counts as often as
  it runs, or once if that is unknown; of branches, the largest counts. Only
  products count.

  Args:
    function: the function to trace.
    *args: arrays or ``jax.ShapeDtypeStruct``.

  Returns:
    Operations by the dtype of the factors: "int8", "bfloat16" and so on.
  """
  return dict(_count(jax.make_jaxpr(function)(*args).jaxpr))


def _count(jaxpr) -> collections.Counter[str]:
  found: Any = collections.Counter()
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == "dot_general":
      found[_dtype(equation)] += _of_dot(equation)
    elif name == "conv_general_dilated":
      found[_dtype(equation)] += _of_convolution(equation)
    elif name == "cond":
      branches = [_count(b.jaxpr) for b in equation.params["branches"]]
      found += max(branches, key=lambda branch: sum(branch.values()))
    else:
      times = equation.params.get("length", 1) if name == "scan" else 1
      for inner in _inner(equation.params):
        for dtype, flops in _count(inner).items():
          found[dtype] += times * flops
  return found


def _inner(params) -> Iterator[Any]:
  """Yields the programs in the parameters of an equation."""
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if hasattr(item, "jaxpr"):
        yield item.jaxpr
      elif hasattr(item, "eqns"):
        yield item


def _dtype(equation) -> str:
  return equation.invars[0].aval.dtype.name


def _of_dot(equation) -> float:
  left, right = (variable.aval.shape for variable in equation.invars[:2])
  (_, right_contracted), (_, right_batch) = equation.params["dimension_numbers"]
  rest = [
    size
    for axis, size in enumerate(right)
    if axis not in (*right_contracted, *right_batch)
  ]
  return 2.0 * math.prod(left) * math.prod(rest)


def _of_convolution(equation) -> float:
  kernel = equation.invars[1].aval.shape
  out = equation.outvars[0].aval.shape
  numbers = equation.params["dimension_numbers"]
  features = kernel[numbers.rhs_spec[0]]
  per_output = math.prod(kernel) / features
  return 2.0 * math.prod(out) * per_output
