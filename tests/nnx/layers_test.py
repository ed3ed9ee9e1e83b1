"""NNX twins: the namesake's parameters, the Linen twin's results."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from bitnet_jax import BitConv, BitDense, BitDenseGeneral
from bitnet_jax import nnx as bit

X = jax.random.normal(jax.random.key(0), (3, 4, 6))
IMAGES = jax.random.normal(jax.random.key(1), (2, 6, 6, 8))
RECIPES = [
  "b158",
  *(
    pytest.param(r, marks=pytest.mark.slow)
    for r in ("bitlinear", "int4", "trilm")
  ),
]

LAYERS = {
  "linear": (nnx.Linear, bit.BitLinear, (6, 5), {}, BitDense(5), X),
  "general": (
    nnx.LinearGeneral,
    bit.BitLinearGeneral,
    ((4, 6), (2, 3)),
    {"axis": (-2, -1)},
    BitDenseGeneral((2, 3), axis=(-2, -1)),
    X,
  ),
  "batched": (
    nnx.LinearGeneral,
    bit.BitLinearGeneral,
    (6, 5),
    {"batch_axis": {0: 3}},
    BitDenseGeneral(5, batch_dims=(0,)),
    X,
  ),
  "conv": (
    nnx.Conv,
    bit.BitConv,
    (8, 4, (3, 3)),
    {"strides": 2, "padding": "CIRCULAR", "feature_group_count": 2},
    BitConv(4, (3, 3), strides=2, padding="CIRCULAR", feature_group_count=2),
    IMAGES,
  ),
}


def make(name, recipe):
  twin, layer, args, options, linen, x = LAYERS[name]
  built = layer(*args, **options, recipe=recipe, rngs=nnx.Rngs(0))
  return (
    built,
    linen.clone(recipe=recipe),
    x,
    twin(*args, **options, rngs=nnx.Rngs(0)),
  )


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_are_those_of_the_namesake(name):
  layer, _, _, twin = make(name, "b158")
  found, expected = (nnx.state(m, nnx.Param) for m in (layer, twin))
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_outputs_and_gradients_are_those_of_the_linen_twin(name, recipe):
  layer, linen, x, _ = make(name, recipe)
  params = {"kernel": layer.kernel[...], "bias": layer.bias[...]}
  graph, state = nnx.split(layer)

  @jax.jit
  def of_nnx(state, x):
    return jax.vjp(lambda s, x: nnx.merge(graph, s)(x), state, x)[0]

  def loss(state, x):
    return jnp.sum(jnp.sin(nnx.merge(graph, state)(x)))

  def loss_of_linen(params, x):
    return jnp.sum(jnp.sin(linen.apply({"params": params}, x)))

  expected = jax.jit(linen.apply)({"params": params}, x)
  np.testing.assert_array_equal(of_nnx(state, x), expected)
  dx = jax.jit(jax.grad(loss, 1))(state, x)
  expected_dx = jax.jit(jax.grad(loss_of_linen, 1))(params, x)
  np.testing.assert_allclose(dx, expected_dx, rtol=1e-6, atol=1e-6)
  grads = jax.jit(jax.grad(loss))(state, x)
  expected_grads = jax.jit(jax.grad(loss_of_linen))(params, x)
  for key in params:
    np.testing.assert_allclose(
      grads[key].get_value(), expected_grads[key], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("name", LAYERS)
def test_float_recipe_is_the_namesake(name):
  layer, _, x, twin = make(name, "float")
  np.testing.assert_allclose(layer(x), twin(x), rtol=1e-6, atol=1e-6)


def test_strength_phases_quantization_in():
  layer, _, x, twin = make("linear", "bitnet_2b4t")
  np.testing.assert_allclose(
    layer(x, strength=jnp.float32(0)), twin(x), rtol=1e-5, atol=1e-5
  )


def test_stochastic_rounding_draws_from_its_stream():
  from bitnet_jax import Quantizer, Recipe

  weights = Quantizer("absmean", (-1, 1), rounding="stochastic")
  layer = bit.BitLinear(6, 64, recipe=Recipe(weights), rngs=nnx.Rngs(0))
  first, second = layer(X), layer(X)
  assert not np.array_equal(first, second)
  again = bit.BitLinear(6, 64, recipe=Recipe(weights), rngs=nnx.Rngs(0))
  np.testing.assert_array_equal(again(X), first)


@pytest.mark.parametrize(
  ("layer", "args", "option"),
  [
    (bit.BitLinear, (4, 4), {"dot_general": jnp.dot}),
    (bit.BitLinearGeneral, (4, 4), {"dot_general_cls": object}),
    (bit.BitConv, (4, 4, (3,)), {"conv_general_dilated": object}),
    (bit.BitLinear, (4, 4), {"promote_dtype": object}),
  ],
)
def test_what_integers_cannot_honour_is_refused(layer, args, option):
  (name,) = option
  with pytest.raises(
    ValueError, match=f"{layer.__name__} does not support {name}"
  ):
    layer(*args, **option, rngs=nnx.Rngs(0))


def test_options_at_their_defaults_are_taken():
  for twin, layer, args, options, _, x in LAYERS.values():
    usual = inspect.signature(twin.__init__).parameters
    given = {n: a.default for n, a in usual.items() if a.default is not a.empty}
    built = layer(*args, **(given | options), rngs=nnx.Rngs(0))
    for call in (
      lambda x, layer=built: layer(x, None),
      lambda x, layer=built: layer(inputs=x, out_sharding=None),
    ):
      assert jax.eval_shape(call, x).dtype == jnp.float32


@pytest.mark.parametrize("recipe", ("float", "b158"))
@pytest.mark.parametrize("dtype", (None, jnp.bfloat16))
def test_preferred_element_type_is_that_of_the_namesake(recipe, dtype):
  for name in LAYERS:
    twin, layer, args, options, _, x = LAYERS[name]
    given = {"dtype": dtype, "preferred_element_type": jnp.float32} | options
    for use_bias in (True, False):
      expected = twin(*args, **given, use_bias=use_bias, rngs=nnx.Rngs(0))
      found = layer(
        *args, **given, use_bias=use_bias, recipe=recipe, rngs=nnx.Rngs(0)
      )
      of_both = (jax.eval_shape(m.__call__, x) for m in (found, expected))
      assert len({y.dtype for y in of_both}) == 1, name


@pytest.mark.parametrize("recipe", ("float", "b158"))
def test_mask_is_multiplied_by_the_kernel(recipe):
  mask = jnp.tril(jnp.ones((8, 4)))[None, None] * jnp.ones((3, 3, 1, 1))
  layer = bit.BitConv(8, 4, (3, 3), mask=mask, recipe=recipe, rngs=nnx.Rngs(0))
  expected = bit.BitConv(8, 4, (3, 3), recipe=recipe, rngs=nnx.Rngs(0))
  expected.kernel[...] = expected.kernel[...] * mask
  np.testing.assert_array_equal(layer(IMAGES), expected(IMAGES))


@pytest.mark.parametrize("recipe", ("float", "b158"))
def test_output_is_sharded_over_explicit_axes_as_asked(recipe):
  explicit = (AxisType.Explicit,) * 2
  mesh = jax.make_mesh((2, 2), ("data", "tensor"), axis_types=explicit)
  with jax.set_mesh(mesh):
    for name, spec in (
      ("linear", P("data", None, "tensor")),
      ("general", P("data", "tensor", None)),
      ("conv", P("data", None, None, "tensor")),
    ):
      _, layer, args, options, _, x = LAYERS[name]
      args = (args[0], (2, 3) if name == "general" else 4, *args[2:])
      built = layer(*args, **options, recipe=recipe, rngs=nnx.Rngs(0))
      x = jax.device_put(jnp.ones((2, *x.shape[1:])), P("data"))
      y = jax.eval_shape(lambda x, b=built, s=spec: b(x, s), x)
      assert y.sharding.spec == spec, name


def test_contracted_axes_are_sorted_as_in_the_namesake():
  x = jax.random.normal(jax.random.key(0), (2, 4, 4))

  def make(layer, **options):
    return layer((4, 4), 3, axis=(-1, -2), rngs=nnx.Rngs(0), **options)

  found = make(bit.BitLinearGeneral, recipe="float")(x)
  np.testing.assert_array_equal(found, make(nnx.LinearGeneral)(x))
  quantized = make(bit.BitLinearGeneral, recipe="int8")
  linen = BitDenseGeneral(3, axis=(-1, -2), recipe="int8")
  params = {n: getattr(quantized, n)[...] for n in ("kernel", "bias")}
  np.testing.assert_array_equal(
    quantized(x), linen.apply({"params": params}, x)
  )


@pytest.mark.parametrize("size", (0, -1, 2.0, True))
def test_wrong_sizes_are_named(size):
  with pytest.raises(
    (TypeError, ValueError), match="out_features of BitLinear is"
  ):
    bit.BitLinear(4, size, rngs=nnx.Rngs(0))
  with pytest.raises(
    (TypeError, ValueError), match="kernel_size of BitConv is"
  ):
    bit.BitConv(4, 4, (3, size), rngs=nnx.Rngs(0))


def test_unknown_recipe_is_named():
  with pytest.raises(ValueError, match=r"recipe is 'b185'"):
    bit.BitLinear(4, 4, recipe="b185", rngs=nnx.Rngs(0))


def test_input_that_does_not_fit_is_named():
  layer = bit.BitConv(8, 4, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0))
  with pytest.raises(ValueError, match="at least 3 axes, not one of shape"):
    layer(jnp.ones((2, 8)))
