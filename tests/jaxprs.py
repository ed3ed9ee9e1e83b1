"""Looks into traced programs."""

import jax


def equations(jaxpr, name):
  """All equations of a primitive, those of inner jaxprs included."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == name:
      yield eqn
    for value in jax.tree.leaves(
      list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from equations(inner, name)


def kernel_calls(function, *args, of="bitnet"):
  """Counts the calls of kernels with this in their names; traces anew."""
  jaxpr = jax.make_jaxpr(lambda *args: function(*args))(*args)
  found = equations(jaxpr.jaxpr, "ffi_call")
  return sum(of in eqn.params["target_name"] for eqn in found)
