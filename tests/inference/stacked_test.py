"""Kernels that Flax stacks, along any axis, or computes from what is stored."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import (
  BitConv,
  BitDense,
  BitDenseGeneral,
  Quantizer,
  Recipe,
)
from bitnet_jax.inference import freeze, load_frozen, save_frozen
from bitnet_jax.inference.size import measure_size
from bitnet_jax.layers import bit_layers
from bitnet_jax.layers.introspection import quantize_kernels, with_codes

PER_CHANNEL = Recipe(Quantizer("absmean", (-1, 1), axis=0))
STACKS = [
  (lift, axis, length)
  for lift in ("scan", "vmap")
  for axis in (0, 1, 2, -1)
  for length in (1, 8)
]
FAST = [("scan", 1, 1), ("vmap", 2, 8)]
X = jax.random.normal(jax.random.key(0), (3, 8))


class Block(nn.Module):
  """A layer as wide as its input, in the form that ``nn.scan`` takes."""

  recipe: Recipe | str = "b158"
  use_bias: bool = False

  @nn.compact
  def __call__(self, x, _=None):
    layer = BitDense(8, self.use_bias, name="layer", recipe=self.recipe)
    return layer(x), None


def stack(module, lift, axis, length):
  options = dict(variable_axes={"params": axis}, split_rngs={"params": True})
  if lift == "scan":
    return nn.scan(module, length=length, **options)
  return nn.vmap(module, in_axes=None, axis_size=length, **options)


def make(model, x, seed=1):
  """Returns variables whose stacked kernels differ in their scales."""
  variables = jax.jit(model.init)(jax.random.key(seed), x)
  keys = iter(jax.random.split(jax.random.key(seed), 100))

  def spread(a):
    factor = jax.random.uniform(next(keys), a.shape, minval=0.1, maxval=3.0)
    return a * factor + 0.1 * factor

  return jax.tree.map(spread, nn.unbox(variables))


def check_frozen(model, x):
  variables = make(model, x)
  expected = jax.jit(model.apply)(variables, x)
  frozen = freeze(variables, model, x)
  found = jax.jit(model.apply)(frozen, x)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
    found,
    expected,
  )
  return frozen


@pytest.mark.parametrize(
  "lift, axis, length",
  [
    pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
    for case in STACKS
  ],
)
def test_each_kernel_has_its_own_scale(lift, axis, length):
  model = stack(Block, lift, axis, length)()
  frozen = check_frozen(model, X)
  kernel = frozen["params"]["layer"]["kernel"]
  shape = [1, 1]
  shape.insert(axis % 3, length)
  assert list(kernel.scale.shape) == shape
  (layer,) = bit_layers(model, X)
  assert layer.stack_axes == (axis % 3 - 3,)


@pytest.mark.parametrize("lift, axis, length", FAST[:1])
def test_outer_codes_are_those_of_the_layers(lift, axis, length):
  model = stack(Block, lift, axis, length)()
  params = make(model, X)["params"]
  codes = quantize_kernels(bit_layers(model, X), params)

  @jax.jit
  def apply(params):
    return model.apply({"params": params}, X)[0]

  np.testing.assert_allclose(
    apply(with_codes(params, codes)), apply(params), rtol=1e-5, atol=1e-5
  )


class Nested(nn.Module):
  """Stacks in a stack, of a layer with axes of every kind."""

  recipe: Recipe | str

  @nn.compact
  def __call__(self, x, _=None):
    x = stack(Block, "scan", -1, 3)(self.recipe, use_bias=True)(x)[0]
    layer = BitDenseGeneral((2, 4), batch_dims=(0,), recipe=self.recipe)
    y = layer(x.reshape(len(x), 1, -1)).reshape(x.shape)
    y = nn.remat(BitConv)(8, (3,), recipe=self.recipe)(y)
    return x + y, None


@pytest.mark.slow
@pytest.mark.parametrize(
  "recipe", ["b158", PER_CHANNEL, "b158_median", "twn", "int8"]
)
def test_stacks_in_stacks_are_frozen(recipe):
  check_frozen(stack(Nested, "scan", 1, 2)(recipe), X)


@pytest.mark.parametrize(
  "width, axis, length",
  # With a width of 3 only the number of kernels makes whole bytes.
  [(8, 1, 2), pytest.param(3, 0, 4, marks=pytest.mark.slow)],
)
def test_stacked_kernels_are_written_and_read(tmp_path, width, axis, length):
  model = stack(Square, "scan", axis, length)()
  x = jnp.ones((2, width))
  frozen = freeze(make(model, x), model, x)
  save_frozen(tmp_path / "model", frozen, model)
  found = load_frozen(tmp_path / "model", model).variables
  assert jax.tree.structure(found) == jax.tree.structure(frozen)
  apply = jax.jit(model.apply)
  np.testing.assert_array_equal(apply(found, x)[0], apply(frozen, x)[0])
  (size,) = measure_size(found).kernels.values()
  assert size.weights == length * width**2


class Square(nn.Module):
  @nn.compact
  def __call__(self, x, _=None):
    return BitDense(x.shape[-1], name="layer")(x), None


class Normed(nn.Module):
  norm: type[nn.Module]

  @nn.compact
  def __call__(self, x):
    extra = {"update_stats": False} if self.norm is nn.SpectralNorm else {}
    return self.norm(BitDense(8, name="layer"))(x, **extra)


class Tied(nn.Module):
  """An autoencoder whose decoder has the kernel of the encoder."""

  @nn.compact
  def __call__(self, x):
    encoder = BitDense(x.shape[-1], use_bias=False, name="encoder")
    y = encoder(x)

    def transposed(variables):
      return jax.tree.map(jnp.transpose, variables)

    def decode(layer, y):
      return layer(y)

    lifted = nn.map_variables(decode, "params", transposed, mutable=False)
    return lifted(encoder, y)


def mapped(function):
  return nn.map_variables(
    BitDense,
    "params",
    trans_in_fn=lambda variables: jax.tree.map(function, variables),
    init=True,
  )(8, name=None)


COMPUTED = {
  "nn.WeightNorm": Normed(nn.WeightNorm),
  "nn.SpectralNorm": Normed(nn.SpectralNorm),
  "signs": mapped(jnp.sign),
  "halves": mapped(lambda a: a / 2),
  "transposed": mapped(jnp.transpose),
  "tied": Tied(),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_kernel_that_is_computed_is_refused_by_the_name_of_its_layer(name):
  model = COMPUTED[name]
  variables = jax.eval_shape(model.init, jax.random.key(0), X)
  path = {"tied": "encoder"}.get(name, "layer" if "nn" in name else "")
  with pytest.raises(ValueError, match=f"do not multiply.* place: {path};"):
    freeze(variables, model, X)


def test_masked_kernel_is_refused_and_left_to_its_layer():
  model = BitConv(4, (3,), mask=jnp.ones((3, 8, 4)))
  variables = model.init(jax.random.key(0), X[None])
  with pytest.raises(ValueError, match=r"a mask, .*place: ; apply"):
    freeze(variables, model, X[None])
  assert not quantize_kernels(bit_layers(model, X[None]), variables["params"])


class Shared(nn.Module):
  """One layer, called twice, through transforms that leave kernels alone."""

  @nn.compact
  def __call__(self, x, flag, options):
    layer = BitDense(8, name="layer")

    def run(layer, x):
      return layer(x)

    x = nn.remat(run)(layer, x) if flag else x
    x = nn.cond(x.sum() > 0, run, run, layer, x)
    x = nn.jit(run)(layer, x)
    x = nn.while_loop(
      lambda layer, carry: carry[0] < 2,
      lambda layer, carry: (carry[0] + 1, layer(carry[1])),
      layer,
      (0, x),
    )[1]
    return x * options["scale"]


def test_flags_and_trees_are_arguments_of_an_example():
  model, options = Shared(), {"scale": jnp.ones(())}
  init = functools.partial(model.init, flag=True, options=options)
  variables = jax.eval_shape(init, jax.random.key(0), X)
  shape = jax.ShapeDtypeStruct((), jnp.float32)
  for example, more in (
    ((X, True, options), {}),
    ((X, False, {"scale": shape}), {}),
    ((X,), {"flag": True, "options": options}),
  ):
    call = functools.partial(freeze, variables, model, *example, **more)
    kernel = jax.eval_shape(call)["params"]["layer"]["kernel"]
    assert kernel.qvalue.data.shape == (2, 8)


def test_what_cannot_be_frozen_is_named():
  model = BitDense(8)
  variables = model.init(jax.random.key(0), X)
  with pytest.raises(ValueError, match=r"with 'params'.*of 'bias', 'kernel'"):
    freeze(variables["params"], model, X)
  with pytest.raises(ValueError, match=r"with 'params'.*a mapping of nothing"):
    freeze({}, model, X)
  with pytest.raises(TypeError, match="model is BitDense, not an instance"):
    freeze(variables, BitDense, X)
  with pytest.raises(
    ValueError, match=r"layer 'layer', whose kernel .*: bias, k"
  ):
    freeze(variables, Block(), X)


def test_model_of_nnx_is_given_without_variables():
  from flax import nnx

  from bitnet_jax.nnx import BitLinear

  layer = BitLinear(8, 8, rngs=nnx.Rngs(0))
  with pytest.raises(
    TypeError, match=r"model is BitLinear.*NNX model.*freeze\(model\)"
  ):
    freeze({"params": {}}, layer, X)


def test_nothing_is_not_loaded(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no frozen model in .*nowhere"):
    load_frozen(tmp_path / "nowhere")
