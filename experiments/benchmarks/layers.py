"""Benchmark suites of single layers (dense, conv, compute) and the median."""

import dataclasses
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.baselines import FakeConv, FakeDense, NormConv
from benchmarks.timing import Case, Run, jitted
from benchmarks.workers import Worker
from bitnet_jax import RECIPES, BitConv, BitDense, QTensor, Recipe
from bitnet_jax.ops import (
  bit_conv,
  bit_dot,
  lowering,
  normalize,
  quantize_input,
)
from bitnet_jax.ops.cpu import kernels, library
from bitnet_jax.ops.xla_conv import Window
from bitnet_jax.quantizers.measures import MEASURES

# Tokens, d_in, d_out.
DENSES = ((2048, 1024, 4096), (1024, 1024, 1024), (128, 512, 512))
GPU_DENSES = ((16384, 4096, 4096), *DENSES)
# Batch, side of the image, channels in and out.
CONVS = (
  (128, 28, 1, 16),
  (128, 32, 3, 32),
  (64, 16, 64, 64),
  (64, 16, 128, 128),
)
PRODUCTS = (
  *DENSES,
  *((128, 784, 128), (8, 4096, 4096), (2, 4096, 4096), (1, 4096, 4096)),
)
CONVOLUTIONS = (
  *CONVS,
  *((128, 16, 4, 32), (128, 14, 16, 16), (128, 14, 16, 32), (128, 7, 32, 64)),
)
LOOKED_UP = (
  *((2048, 1024, 4096), (2048, 256, 1024), (2048, 1024, 256), (2048, 256, 256)),
  *((128, 512, 512), (128, 128, 16), (1, 1024, 1024), (1024, 8, 256)),
)
CONVOLUTIONS_LOOKED_UP = (*CONVS[2:], *CONVOLUTIONS[-2:])
SUMMED = (
  *LOOKED_UP[:5],
  *((64, 512, 512), (32, 512, 512), (2048, 16, 16), (2048, 8, 256)),
)
# Rows and their lengths.
ROUNDED = ((2048, 1024), (2048, 256), (128, 784), (64, 64))
SAME = Window(strides=(1, 1), padding="SAME")
MEDIANS = ((100, 1000), (1000, 1000), (1000, 4000))


def step(layer: nn.Module, x: jax.Array, g: jax.Array) -> Run:
  """Returns a timer of y, dx and the parameter gradients for ``g``."""

  def run(params, x, g):
    y, vjp = jax.vjp(layer.apply, params, x)
    return y, *vjp(g)

  return jitted(run, layer.init(jax.random.key(2), x), x, g)


def forward(layer: nn.Module, x: jax.Array) -> Run:
  """Returns a timer of y."""
  return jitted(layer.apply, layer.init(jax.random.key(2), x), x)


def dense(torch: Worker | None) -> Iterator[Case]:
  """``BitDense`` and ``nn.Dense``: forward and backward, and forward alone."""
  for shape in GPU_DENSES if jax.default_backend() == "gpu" else DENSES:
    tokens, d_in, d_out = shape
    x = jax.random.normal(jax.random.key(0), (tokens, d_in))
    g = jax.random.normal(jax.random.key(1), (tokens, d_out))
    layers = {
      "nn.Dense": nn.Dense(d_out),
      "b158": BitDense(d_out),
      "b158_median": BitDense(d_out, recipe="b158_median"),
      "fake": FakeDense(d_out),
      "fake, jnp.median": FakeDense(d_out, jnp.median),
    }
    runs = {name: step(layer, x, g) for name, layer in layers.items()}
    half = {
      "nn.Dense, bfloat16": nn.Dense(d_out, dtype=jnp.bfloat16),
      "b158, bfloat16": BitDense(d_out, dtype=jnp.bfloat16),
    }
    x16, g16 = x.astype(jnp.bfloat16), g.astype(jnp.bfloat16)
    runs |= {name: step(layer, x16, g16) for name, layer in half.items()}
    ahead = {
      f"forward, {n}": forward(layers[n], x) for n in ("nn.Dense", "b158")
    }
    ratios = [
      ("b158", "nn.Dense"),
      ("b158", "fake"),
      ("b158_median", "b158"),
      ("b158_median", "fake, jnp.median"),
      ("b158, bfloat16", "nn.Dense, bfloat16"),
      ("forward, b158", "forward, nn.Dense"),
    ]
    if library.is_there():
      with lowering.portable():
        runs["b158, without kernels"] = step(layers["b158"], x, g)
      ratios.append(("b158, without kernels", "nn.Dense"))
    if torch:
      for name in ("Linear", "AbsMean", "AbsMedian"):
        runs[f"torch {name}"] = torch.make(
          kind="dense", shape=shape, layer=name
        )
      ratios += [
        ("torch AbsMean", "torch Linear"),
        ("b158", "torch AbsMean"),
        ("b158_median", "torch AbsMedian"),
      ]
    yield Case(f"dense {tokens} x {d_in} x {d_out}", runs | ahead, ratios)


def conv(torch: Worker | None) -> Iterator[Case]:
  """``BitConv`` and ``nn.Conv``: forward and backward, and forward alone."""
  del torch  # bitlinear has no convolution.
  without_norm = dataclasses.replace(RECIPES["b158"], norm=None)
  for batch, side, c_in, c_out in CONVS:
    x = jax.random.normal(jax.random.key(0), (batch, side, side, c_in))
    g = jax.random.normal(jax.random.key(1), (batch, side, side, c_out))
    layers = {
      "nn.Conv": nn.Conv(c_out, (3, 3)),
      "norm, nn.Conv": NormConv(c_out),
      "b158": BitConv(c_out, (3, 3)),
      "b158, norm=None": BitConv(c_out, (3, 3), recipe=without_norm),
      "fake": FakeConv(c_out),
    }
    runs = {name: step(layer, x, g) for name, layer in layers.items()}
    half = {
      "nn.Conv, bfloat16": nn.Conv(c_out, (3, 3), dtype=jnp.bfloat16),
      "b158, bfloat16": BitConv(c_out, (3, 3), dtype=jnp.bfloat16),
    }
    x16, g16 = x.astype(jnp.bfloat16), g.astype(jnp.bfloat16)
    runs |= {name: step(layer, x16, g16) for name, layer in half.items()}
    ahead = {
      f"forward, {n}": forward(layers[n], x) for n in ("nn.Conv", "b158")
    }
    ratios = [
      ("b158", "nn.Conv"),
      ("b158, norm=None", "nn.Conv"),
      ("b158", "norm, nn.Conv"),
      ("b158", "fake"),
      ("b158, bfloat16", "nn.Conv, bfloat16"),
      ("forward, b158", "forward, nn.Conv"),
    ]
    if library.is_there():
      with lowering.portable():
        runs["b158, without kernels"] = step(layers["b158"], x, g)
      ratios.append(("b158, without kernels", "nn.Conv"))
    name = f"conv {batch} x {side}x{side}, {c_in} to {c_out}"
    yield Case(name, runs | ahead, ratios)


def compute(torch: Worker | None) -> Iterator[Case]:
  """Products of given codes in int8, in float, and with compute="auto"."""
  del torch
  base = RECIPES["bitnet_2b4t"]
  assert base.acts is not None
  assert base.weights is not None
  recipes = {
    c: Recipe(base.weights, base.acts, None, compute=c)
    for c in ("float", "int8", "auto")
  }
  ratios = [("int8", "float"), ("auto", "float")]
  for rows, d_in, d_out in PRODUCTS:
    x = base.acts.quantize(jax.random.normal(jax.random.key(0), (rows, d_in)))
    w = base.weights.quantize(
      jax.random.normal(jax.random.key(1), (d_in, d_out))
    )
    runs = {
      name: jitted(lambda x, w, r=recipe: bit_dot(x, w, r), x, w)
      for name, recipe in recipes.items()
    }
    yield Case(f"dot {rows} x {d_in} x {d_out}", runs, ratios)
  if library.is_there():
    yield from looked_up()
    yield from summed()
    yield from rounded()
  for batch, side, c_in, c_out in CONVOLUTIONS:
    x = jax.random.normal(jax.random.key(0), (batch, side, side, c_in))
    x = base.acts.quantize(x, axes=(1, 2, 3))
    w = jax.random.normal(jax.random.key(1), (3, 3, c_in, c_out))
    w = base.weights.quantize(w)

    def convolve(x, w, recipe):
      return bit_conv(x, w, recipe, window_strides=(1, 1), padding="SAME")

    runs = {
      name: jitted(lambda x, w, r=recipe, f=convolve: f(x, w, r), x, w)
      for name, recipe in recipes.items()
    }
    yield Case(f"conv {batch} x {side}x{side}, {c_in} to {c_out}", runs, ratios)


def looked_up() -> Iterator[Case]:
  """Input gradients with the native lookup kernel and with XLA."""
  for rows, d_in, d_out in LOOKED_UP:
    g = jax.random.normal(jax.random.key(0), (rows, d_out))
    w = jax.random.randint(jax.random.key(1), (d_in, d_out), -1, 2, jnp.int8)
    runs = {
      "kernel": jitted(kernels.ternary_dot, g, w, jnp.float32(1)),
      "float": jitted(lambda g, w: g @ w.astype(g.dtype).T, g, w),
    }
    name = f"input gradient, {rows} x {d_in} x {d_out}"
    yield Case(name, runs, [("kernel", "float")])
  for batch, side, c_in, c_out in CONVOLUTIONS_LOOKED_UP:
    g = jax.random.normal(jax.random.key(0), (batch, side, side, c_out))
    w = jax.random.randint(jax.random.key(1), (3, 3, c_in, c_out), -1, 2)
    w = QTensor(w.astype(jnp.int8), jnp.ones((1, 1, 1, 1)))

    def gradient(g, w, c_in=c_in):
      x = jax.ShapeDtypeStruct((*g.shape[:-1], c_in), g.dtype)
      return lowering.CONV_BY_INPUT(g, w, like=x, window=SAME, precision=None)

    name = f"{batch} x {side}x{side}, {c_in} to {c_out}"
    yield _beside_xla(f"input gradient, {name}", gradient, g, w)


def summed() -> Iterator[Case]:
  """Weight gradients with the native integer kernel and with XLA."""
  for rows, d_in, d_out in SUMMED:
    x = jax.random.randint(jax.random.key(0), (rows, d_in), -128, 128, jnp.int8)
    g = jax.random.normal(jax.random.key(1), (rows, d_out))
    scale = jnp.ones((rows, 1))

    def by_xla(x, scale, g):
      q = QTensor(x, scale)
      w = jax.ShapeDtypeStruct((x.shape[-1], g.shape[-1]), g.dtype)
      return lowering.DOT_BY_WEIGHT(g, q, like=w, precision=None)

    def by_kernel(x, scale, g):
      return kernels.transposed_dot(x, scale[:, 0], g)

    runs = {"kernel": jitted(by_kernel, x, scale, g)}
    with lowering.portable():
      runs["float"] = jitted(by_xla, x, scale, g)
    name = f"weight gradient, {rows} x {d_in} x {d_out}"
    yield Case(name, runs, [("kernel", "float")])
  for batch, side, c_in, c_out in CONVOLUTIONS:
    shape = batch, side, side
    x = QTensor(
      jax.random.randint(
        jax.random.key(0), (*shape, c_in), -128, 128, jnp.int8
      ),
      jnp.ones((batch, 1, 1, 1)),
    )
    g = jax.random.normal(jax.random.key(1), (*shape, c_out))

    def gradient(g, x, c_in=c_in, c_out=c_out):
      w = jax.ShapeDtypeStruct((3, 3, c_in, c_out), g.dtype)
      return lowering.CONV_BY_WEIGHT(g, x, like=w, window=SAME, precision=None)

    name = f"{batch} x {side}x{side}, {c_in} to {c_out}"
    yield _beside_xla(f"weight gradient, {name}", gradient, g, x)


def rounded() -> Iterator[Case]:
  """Layer norm and rounding of rows, and the gradient of the norm."""
  for shape in ROUNDED:
    x = jax.random.normal(jax.random.key(0), shape)
    g = jax.random.normal(jax.random.key(1), shape)
    name = f"{shape[0]} rows of {shape[1]}"

    def rounds(x):
      q = quantize_input(x, "b158")
      return q.qvalue, q.scale

    def gradient(x, g):
      return jax.vjp(lambda x: normalize(x, "layer_norm"), x)[1](g)

    yield _beside_xla(f"norm and rounding, {name}", rounds, x)
    yield _beside_xla(f"norm gradient, {name}", gradient, x, g)


def _beside_xla(name, function, *args):
  """Times a function with kernels and without."""
  runs = {"kernel": jitted(lambda *args: function(*args), *args)}
  with lowering.portable():
    runs["float"] = jitted(lambda *args: function(*args), *args)
  return Case(name, runs, [("kernel", "float")])


def median(torch: Worker | None) -> Iterator[Case]:
  """The exact median against the mean, and against sorting."""
  del torch
  for shape in MEDIANS:
    w = jax.random.normal(jax.random.key(0), shape)
    runs = {
      name: jitted(lambda w, m=MEASURES[name]: m(w, (0, 1)), w)
      for name in ("absmean", "absmedian")
    }
    runs["jnp.median"] = jitted(lambda w: jnp.median(jnp.abs(w)), w)
    yield Case(
      f"median of {w.size:,}",
      runs,
      [("absmedian", "absmean"), ("absmedian", "jnp.median")],
    )
