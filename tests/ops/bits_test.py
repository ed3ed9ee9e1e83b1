"""Integer and float products give the same bits, as users compile them.

Asked of one product or layer and its gradients, with what stands directly
before and after it; and of a small network.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, BitConv, BitDense, Quantizer, Recipe
from bitnet_jax.ops import bit_conv, bit_dot, normalize

PER_CHANNEL = Quantizer("absmean", (-1, 1), axis=0)
PER_TENSOR = Quantizer("absmax", (-128, 127))

# Shape of x, number of outputs, options of the product and of the recipe.
DOTS = {
  "one row": ((1, 64), 32, {}),
  "no batch axis": ((300,), 17, {}),
  "two batch axes": ((5, 3, 31), 8, {"name": "b158_median"}),
  "three batch axes": ((2, 3, 4, 100), 3, {"ste": "clipped"}),
  "empty batch": ((0, 16), 8, {}),
  "one term": ((16, 1), 9, {"bias_in_product": True, "norm": None}),
  "one term, bias after": ((16, 1), 9, {"norm": None}),
  "one output": ((33, 700), 1, {}),
  "one of each": ((1, 1), 1, {"norm": None}),
  "bias in product": ((7, 65), 12, {"name": "bitlinear"}),
  "no bias": ((7, 65), 12, {"bias": False, "norm": "rms_norm"}),
  "clipped": ((9, 40), 40, {"name": "bitnet_2b4t", "ste": "clipped"}),
  "bfloat16": ((6, 48), 16, {"dtype": "bfloat16"}),
  "float16": ((6, 48), 16, {"dtype": "float16", "bias_in_product": True}),
  "other axes": (
    (4, 6, 20), 10, {"weights": PER_CHANNEL, "acts": PER_TENSOR}
  ),
  "int8 weights": ((8, 256), 24, {"name": "int8"}),
}  # fmt: skip
# Shape of x, shape of w, options.
CONVS = {
  "pixels": ((2, 9, 9, 1), (3, 3, 1, 8), {}),
  "few channels": ((2, 8, 7, 3), (3, 2, 3, 4), {"strides": (2, 1)}),
  "one example": ((1, 6, 6, 5), (3, 3, 5, 6), {"name": "b158_median"}),
  "empty batch": ((0, 6, 6, 4), (3, 3, 4, 2), {}),
  "one axis": ((3, 20, 6), (5, 6, 4), {"padding": "VALID", "strides": (3,)}),
  "three axes": ((2, 4, 5, 4, 4), (2, 3, 2, 4, 3), {"ste": "clipped"}),
  "one by one": ((2, 5, 5, 8), (1, 1, 8, 8), {"bias": False}),
  "groups": ((2, 7, 7, 8), (3, 3, 4, 6), {"groups": 2, "name": "bitlinear"}),
  "depthwise": ((2, 7, 7, 6), (3, 3, 1, 6), {"groups": 6}),
  "kernel dilation": ((2, 9, 9, 4), (3, 3, 4, 4), {"rhs_dilation": (2, 3)}),
  "input dilation": (
    (2, 5, 5, 4),
    (3, 3, 4, 4),
    {"lhs_dilation": (2, 2), "padding": ((1, 2), (0, 1))},
  ),
  "bfloat16": ((2, 6, 6, 8), (3, 3, 8, 8), {"dtype": "bfloat16"}),
  "bias in product": ((2, 6, 6, 4), (3, 3, 4, 8), {"bias_in_product": True}),
}


class GatedBlock(nn.Module):
  """Layers whose results meet in products and sums."""

  recipe: Recipe

  @nn.compact
  def __call__(self, x):
    def dense(features):
      bias_init = nn.initializers.normal(1.0)
      return BitDense(features, bias_init=bias_init, recipe=self.recipe)

    h = nn.silu(dense(40)(x)) * dense(40)(x)
    return dense(1)(dense(x.shape[-1])(h) + x)


LAYERS = {
  "a gated block": (GatedBlock(RECIPES["b158"]), (3, 2, 5)),
  "BitDense": (BitDense(24), (6, 40)),
  "BitDense, bfloat16": (BitDense(24, dtype=jnp.bfloat16), (2, 6, 40)),
  "BitConv": (BitConv(8, (3, 3)), (2, 8, 8, 3)),
  "BitConv, circular": (BitConv(4, 3, padding="CIRCULAR"), (2, 3, 12, 4)),
}
CASES = [
  *(f"dot, {name}" for name in DOTS),
  *(f"conv, {name}" for name in CONVS),
  *(f"layer, {name}" for name in LAYERS),
]
# The backward pass does not depend on how the forward one computed.
TRAINED = [
  *("dot, bias in product", "dot, three batch axes"),
  *("conv, few channels", "layer, BitConv", "layer, a gated block"),
]


def recipe_of(options, compute):
  fields = {"norm", "ste", "bias_in_product", "weights", "acts"}
  return dataclasses.replace(
    RECIPES[options.get("name", "b158")],
    compute=compute,
    **{k: v for k, v in options.items() if k in fields},
  )


def product(kind, options, compute):
  recipe = recipe_of(options, compute)

  def dot(x, w, bias):
    return bit_dot(normalize(x, recipe.norm), w, recipe, bias=bias)

  def conv(x, w, bias):
    x = normalize(x, recipe.norm, axes=tuple(range(1, x.ndim)))
    rank = x.ndim - 2
    return bit_conv(
      x,
      w,
      recipe,
      bias=bias,
      window_strides=options.get("strides", (1,) * rank),
      padding=options.get("padding", "SAME"),
      lhs_dilation=options.get("lhs_dilation"),
      rhs_dilation=options.get("rhs_dilation"),
      feature_group_count=options.get("groups", 1),
    )

  return dot if kind == "dot" else conv


def draw(shapes, dtype="float32"):
  rng = np.random.default_rng(0)
  return [jnp.asarray(rng.normal(size=s), dtype) for s in shapes]


def cases():
  """Name, kind, options and arguments of every case."""
  for name, (x, d_out, options) in DOTS.items():
    arguments = draw((x, (x[-1], d_out), (d_out,)), options.get("dtype"))
    yield f"dot, {name}", "dot", options, arguments
  for name, (x, w, options) in CONVS.items():
    arguments = draw((x, w, w[-1:]), options.get("dtype"))
    yield f"conv, {name}", "conv", options, arguments


def training(f):
  """A program that goes on from ``f`` to its gradients."""

  def run(*arguments):
    def loss(*arguments):
      y = nn.relu(f(*arguments))
      return jnp.sum(y.astype(jnp.float32) ** 2), y

    every = tuple(range(len(arguments)))
    return jax.value_and_grad(loss, every, has_aux=True)(*arguments)

  return run


def same_bits(wrap, names):
  """For each case, whether its results agree to the bit, one by one."""
  functions, arguments = {"int8": {}, "float": {}}, {}
  for name, kind, options, (x, w, bias) in cases():
    arguments[name] = (x, w, bias) if options.get("bias", True) else (x, w)
    for compute, found in functions.items():
      f = product(kind, options, compute)
      found[name] = lambda x, w, b=None, f=f: f(x, w, b)
  for name, (layer, shape) in LAYERS.items():
    (x,) = draw([shape])
    arguments[f"layer, {name}"] = layer.init(jax.random.key(0), x), x
    for compute, found in functions.items():
      recipe = recipe_of({}, compute)
      found[f"layer, {name}"] = layer.clone(recipe=recipe).apply

  def bits(compute):
    # One program for all cases compiles faster than one for each.
    def run(arguments):
      return {
        name: wrap(functions[compute][name])(*arguments[name]) for name in names
      }

    return {
      name: [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(y)]
      for name, y in jax.jit(run)(arguments).items()
    }

  int8, floats = (bits(compute) for compute in functions)
  return {
    name: [a == b for a, b in zip(int8[name], floats[name], strict=True)]
    for name in names
  }


def same_bits_of_results():
  return same_bits(lambda f: f, CASES)


def same_bits_of_gradients():
  return same_bits(training, TRAINED)


@pytest.fixture(scope="module")
def of_results(optimized):
  return optimized(same_bits_of_results)


@pytest.fixture(scope="module")
def of_gradients(optimized):
  return optimized(same_bits_of_gradients)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_integers_and_floats_give_the_same_bits(of_results, case):
  assert of_results[case]
  assert all(of_results[case]), of_results[case]


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINED)
def test_integers_and_floats_give_the_same_gradients(of_gradients, case):
  assert len(of_gradients[case]) >= 3
  assert all(of_gradients[case]), of_gradients[case]
