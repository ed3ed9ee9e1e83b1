"""Benchmark suite of layers compiled for TPU; needs libtpu, but no TPU."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bitnet_jax import RECIPES, BitDense, QTensor, backend
from bitnet_jax.analysis import programs
from bitnet_jax.ops import bit_dot, lowering
from bitnet_jax.programs import ahead
from bitnet_jax.types import Packed

TOPOLOGIES = ("v5e:2x2", "v6e:2x2")
TOKENS, D_IN, D_OUT = 2048, 1024, 4096
# Of a frozen layer.
ROWS, SIDE = (1, 8, 64), 4096


def compiled(layer: nn.Module, topology: str, dtype: Any) -> Any:
  """Returns a compiled step, as in the suite dense, for one chip."""

  def step(params, x, g):
    y, vjp = jax.vjp(layer.apply, params, x)
    return y, *vjp(g)

  x = jax.ShapeDtypeStruct((TOKENS, D_IN), dtype)
  g = jax.ShapeDtypeStruct((TOKENS, D_OUT), dtype)
  params = jax.eval_shape(layer.init, jax.random.key(0), x)
  return _compiled(step, topology, params, x, g)


def _compiled(function: Any, topology: str, *shapes: Any) -> Any:
  devices = ahead.get_topology(topology)
  sharding = NamedSharding(Mesh(devices[:1], ("chip",)), PartitionSpec())
  arguments = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), shapes
  )
  with backend.compiling_for("tpu"):
    return jax.jit(function).lower(*arguments).compile()


def frozen(rows: int, topology: str) -> Any:
  """Returns the compiled product of rows with a frozen kernel."""
  x = jax.ShapeDtypeStruct((rows, SIDE), jnp.float32)
  data = jax.ShapeDtypeStruct((SIDE // 4, SIDE), jnp.uint8)
  scale = jax.ShapeDtypeStruct((1, 1), jnp.float32)

  def multiply(x, data, scale):
    kernel = QTensor(Packed(data, SIDE, -2, "quad"), scale)
    return bit_dot(x, kernel, RECIPES["bitnet_2b4t"])

  return _compiled(multiply, topology, x, data, scale)


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields names of cases with the products and memory of their programs."""
  for topology in TOPOLOGIES:
    for dtype in (jnp.float32, jnp.bfloat16):
      for recipe in ("b158", "b158_median"):
        layer = BitDense(D_OUT, dtype=dtype, recipe=recipe)
        program = compiled(layer, topology, dtype)
        hlo = program.as_text()
        entry = hlo[hlo.index("\nENTRY") :]
        found: dict[str, Any] = {
          f"product {i}": product
          for i, product in enumerate(programs.products(hlo), start=1)
        }
        yield (
          f"{topology}, {jnp.dtype(dtype).name}, {recipe}",
          found
          | {
            "fusions": len(re.findall(r" fusion\(", entry)),
            "temporary bytes": program.memory_analysis().temp_size_in_bytes,
          },
        )
    for n in ROWS:
      for kind, context in (
        ("kernel", contextlib.nullcontext()),
        ("XLA alone", lowering.portable()),
      ):
        with context:
          hlo = frozen(n, topology).as_text()
        yield (
          f"{topology}, {n} rows, packed, {kind}",
          {
            "kernels": hlo.count('custom_call_target="tpu_custom_call"'),
            "arrays of unpacked codes": len(
              re.findall(rf"= s8\[{SIDE},{SIDE}\]", hlo)
            ),
          },
        )
