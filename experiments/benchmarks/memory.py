"""Benchmark suite of residuals and of the memory of compiled programs."""

import contextlib
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.ad_checkpoint
import jax.numpy as jnp

from benchmarks.baselines import FakeDense
from bitnet_jax import BitDense
from bitnet_jax.ops import bit_dot

DEPTH = 4
# Tokens, width.
STACKS = ((2048, 1024), (256, 2048))
_RESIDUAL = re.compile(r"^(?:bool|[a-z]+(\d+))\[([\d,]*)\]")


class DenseStack(nn.Module):
  """A stack of layers, optionally with ReLUs between them.

  Attributes:
    layer: makes a layer with a number of features.
    relu: whether there are ReLUs, which store masks and zeros.
  """

  layer: Callable[[int], nn.Module]
  relu: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [tokens, width] to the same."""
    for _ in range(DEPTH):
      x = self.layer(x.shape[-1])(x)
      x = nn.relu(x) if self.relu else x
    return x


def kept_bytes(f: Callable, *args: Any) -> int:
  """Returns the bytes of the residuals of ``f``, by ``jax.ad_checkpoint``."""
  listing = io.StringIO()
  with contextlib.redirect_stdout(listing):
    jax.ad_checkpoint.print_saved_residuals(f, *args)
  total = 0
  for line in listing.getvalue().splitlines():
    match = _RESIDUAL.match(line)
    if match is None:
      raise ValueError(f"not a residual: {line}")
    bits = int(match[1]) if match[1] else 8
    total += math.prod(map(int, filter(None, match[2].split(",")))) * bits // 8
  return total


def compiled_bytes(f: Callable, *args: Any) -> int:
  """Returns the temporary bytes of a compiled forward and backward pass."""

  def step(*args):
    y, vjp = jax.vjp(f, *args)
    return y, *vjp(y)

  analysis: Any = jax.jit(step).lower(*args).compile().memory_analysis()
  return analysis.temp_size_in_bytes


def rows() -> Iterator[tuple[str, dict[str, float]]]:
  """Yields names of cases with their bytes and ratios."""
  x, w = jnp.ones((2048, 1024)), jnp.ones((1024, 4096))
  operands = x.nbytes + w.nbytes
  kept = kept_bytes(lambda x, w: bit_dot(x, w, "b158"), x, w)
  yield (
    "bit_dot 2048 x 1024 x 4096",
    {"float32 operands": operands, "kept": kept, "ratio": kept / operands},
  )
  for (tokens, width), relu in itertools.product(STACKS, (False, True)):
    x = jnp.ones((tokens, width))
    found: dict[str, float] = {}
    for name, layer in (("fake", FakeDense), ("b158", BitDense)):
      stack = DenseStack(layer, relu)
      params = stack.init(jax.random.key(0), x)
      found[f"{name}, kept"] = kept_bytes(stack.apply, params, x)
      found[f"{name}, compiled temporaries"] = compiled_bytes(
        stack.apply, params, x
      )
    for what in ("kept", "compiled temporaries"):
      found[f"ratio, {what}"] = found[f"b158, {what}"] / found[f"fake, {what}"]
    name = f"{DEPTH} layers{' and ReLUs' if relu else ''}"
    yield f"{name}, {tokens} tokens, width {width}", found
