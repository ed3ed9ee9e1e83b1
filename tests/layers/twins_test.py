"""Tests of our layers beside the ``nn`` layers that they replace."""

import concurrent.futures
import dataclasses
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from bitnet_jax import RECIPES, BitConv, BitDense, BitDenseGeneral

TWINS = ((BitDense, nn.Dense), (BitDenseGeneral, nn.DenseGeneral),
         (BitConv, nn.Conv))  # fmt: skip
KIND = {"dense": TWINS[0], "general": TWINS[1], "conv": TWINS[2]}
# What the twins have and a quantized product cannot honour.
PROMOTE = {"promote_dtype": lambda *arrays, dtype: arrays}
PRODUCTS = {
  "dot_general": jax.lax.dot_general,
  "dot_general_cls": lambda: jax.lax.dot_general,
}
CONVOLUTIONS = {
  "conv_general_dilated": jax.lax.conv_general_dilated,
  "conv_general_dilated_cls": lambda: jax.lax.conv_general_dilated,
}
BF16, F16 = jnp.bfloat16, jnp.float16

# Kind, shape of the input, positional and keyword arguments.
CASES = {
  "dense": ("dense", (4, 6), (5,), {}),
  "dense, one token": ("dense", (6,), (5,), {"use_bias": False}),
  "dense, many axes": ("dense", (2, 3, 2, 6), (5,), {}),
  "dense, bfloat16": ("dense", (4, 6), (5,), {"dtype": BF16}),
  "dense, bfloat16 params": ("dense", (4, 6), (5,), {"param_dtype": BF16}),
  "dense, float16, bfloat16 params": (
    "dense",
    (4, 6),
    (5,),
    {"dtype": F16, "param_dtype": BF16},
  ),
  "general, one axis": ("general", (2, 3, 6), (5,), {}),
  "general, several axes": (
    "general",
    (2, 3, 4, 5),
    ((6, 2),),
    {"axis": (1, -1)},
  ),
  "general, axes in another order": (
    "general",
    (2, 3, 4),
    (5,),
    {"axis": (-1, 1), "dtype": BF16},
  ),
  "general, batch axis": (
    "general",
    (2, 3, 4, 5),
    ((3, 2),),
    {"axis": (-1,), "batch_dims": (0,)},
  ),
  "general, two batch axes": (
    "general",
    (2, 3, 4, 5),
    (6,),
    {"axis": -1, "batch_dims": (0, 1), "use_bias": False},
  ),
  "conv, 1 axis": ("conv", (2, 9, 3), (4, (3,)), {}),
  "conv, integer window": ("conv", (2, 9, 3), (4, 3), {"strides": 2}),
  "conv, 2 axes": ("conv", (2, 7, 8, 3), (4, (3, 2)), {"strides": (2, 1)}),
  "conv, 3 axes": ("conv", (1, 4, 5, 3, 2), (3, (2, 3, 2)), {}),
  "conv, unbatched": ("conv", (7, 8, 3), (4, (3, 3)), {}),
  "conv, batches": ("conv", (2, 3, 5, 6, 3), (4, (3, 3)), {}),
  "conv, valid": ("conv", (2, 7, 8, 3), (4, (3, 3)), {"padding": "VALID"}),
  "conv, circular": (
    "conv",
    (2, 7, 8, 3),
    (4, (3, 4)),
    {"padding": "CIRCULAR", "kernel_dilation": (1, 2)},
  ),
  "conv, reflect": ("conv", (2, 7, 3), (4, (4,)), {"padding": "REFLECT"}),
  "conv, causal": (
    "conv",
    (2, 9, 3),
    (4, (3,)),
    {"padding": "CAUSAL", "kernel_dilation": 2},
  ),
  "conv, padding 1": ("conv", (2, 7, 8, 3), (4, (3, 3)), {"padding": 1}),
  "conv, paddings": (
    "conv",
    (2, 7, 8, 3),
    (4, (3, 3)),
    {"padding": ((2, 0), 1)},
  ),
  "conv, dilations": (
    "conv",
    (2, 7, 8, 3),
    (4, (3, 2)),
    {"input_dilation": (1, 2), "kernel_dilation": (2, 1), "padding": 2},
  ),
  "conv, groups": (
    "conv",
    (2, 7, 8, 4),
    (6, (3, 3)),
    {"feature_group_count": 2, "use_bias": False},
  ),
  "conv, bfloat16": ("conv", (2, 7, 8, 3), (4, (3, 3)), {"dtype": BF16}),
}


def layers(case, recipe="float"):
  kind, shape, args, kwargs = CASES[case]
  ours, twin = KIND[kind]
  random = {"bias_init": nn.initializers.normal(1.0)}
  x = jax.random.normal(jax.random.key(1), shape)
  return (
    ours(*args, **kwargs, **random, recipe=recipe),
    twin(*args, **kwargs, **random),
    x,
  )


@pytest.mark.parametrize("ours, twin", TWINS)
def test_arguments_are_those_of_the_twin_in_their_order(ours, twin):
  def names(module, *, keyword=False):
    return [
      f.name
      for f in dataclasses.fields(module)
      if f.name not in ("parent", "name") and f.kw_only == keyword
    ]

  expected = names(twin)
  assert names(ours) == expected
  assert names(ours, keyword=True)[0] == "recipe"
  defaults = {f.name: f.default for f in dataclasses.fields(twin)}
  for f in dataclasses.fields(ours):
    if f.name in expected and not f.name.endswith("_init"):
      assert f.default == defaults[f.name]
  call, of_twin = (inspect.signature(m.__call__) for m in (ours, twin))
  assert list(call.parameters) == [*of_twin.parameters, "strength"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_of_the_twin(case):
  ours, twin, x = layers(case, "b158")
  actual, expected = (
    jax.jit(layer.init)(jax.random.key(0), x) for layer in (ours, twin)
  )
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(
    jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def outputs_of_twins():
  """For every case, whether the layers agree to the bit, and in dtype."""

  def compare(case):
    ours, twin, x = layers(case)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
      lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype),
      jax.eval_shape(twin.init, jax.random.key(0), x),
    )
    actual, expected = (
      jax.jit(layer.apply)(variables, x) for layer in (ours, twin)
    )
    return [
      actual.dtype == expected.dtype,
      actual.shape == expected.shape,
      np.asarray(actual).tobytes() == np.asarray(expected).tobytes(),
    ]

  with concurrent.futures.ThreadPoolExecutor() as pool:
    return dict(zip(CASES, pool.map(compare, CASES), strict=True))


@pytest.fixture(scope="module")
def outputs(optimized):
  return optimized(outputs_of_twins)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_float_recipe_equals_the_twin_bit_for_bit(outputs, case):
  assert outputs[case] == [True, True, True]


@pytest.mark.parametrize("case", CASES)
def test_quantized_layer_has_the_output_of_the_twin_in_shape_and_dtype(case):
  ours, twin, x = layers(case, "b158")
  actual, expected = (
    jax.eval_shape(layer.init_with_output, jax.random.key(0), x)[0]
    for layer in (ours, twin)
  )
  assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)


@pytest.mark.slow
def test_integer_inputs_are_taken_as_floats():
  x = jnp.arange(12).reshape(3, 4)
  layer = BitDense(5)
  y, variables = layer.init_with_output(jax.random.key(0), x)
  expected = layer.apply(variables, x.astype(jnp.float32))
  np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("layer", [ours for ours, _ in TWINS])
def test_unknown_arguments_are_refused_by_name(layer):
  required = {"kernel_size": (3,)} if layer is BitConv else {}
  with pytest.raises(TypeError, match="maks"):
    layer(features=3, **required, maks=None)


def options_of(kind):
  return PROMOTE | (CONVOLUTIONS if kind == "conv" else PRODUCTS)


@pytest.mark.parametrize(
  "kind, option", [(kind, o) for kind in KIND for o in options_of(kind)]
)
def test_options_of_the_product_are_for_float_alone(kind, option):
  ours, twin = KIND[kind]
  args = (4, (3,)) if kind == "conv" else (4,)
  x = jax.random.normal(jax.random.key(0), (2, 5, 3))
  given = {option: options_of(kind)[option]}
  layer = ours(*args, **given)
  with pytest.raises(ValueError, match=f"{ours.__name__} .*support {option} w"):
    layer.init(jax.random.key(0), x)
  variables = twin(*args).init(jax.random.key(0), x)
  expected = twin(*args, **given).apply(variables, x)
  found = layer.clone(recipe="float").apply(variables, x)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("recipe", ("float", "b158"))
def test_mask_is_multiplied_by_the_kernel(recipe):
  mask = jnp.tril(jnp.ones((2, 4)))[None, None] * jnp.ones((3, 3, 1, 1))
  x = jax.random.normal(jax.random.key(0), (1, 5, 5, 2))
  layer = BitConv(4, (3, 3), mask=mask, recipe=recipe)
  variables = layer.init(jax.random.key(1), x)
  kernel = variables["params"]["kernel"] * mask
  plain = {"params": {**variables["params"], "kernel": kernel}}
  expected = BitConv(4, (3, 3), recipe=recipe).apply(plain, x)
  np.testing.assert_array_equal(layer.apply(variables, x), expected)
  with pytest.raises(
    ValueError, match=r"mask has the shape \(2, 4\).*\(3, 3, 2"
  ):
    layer.clone(mask=mask[0, 0]).apply(variables, x)


@pytest.fixture
def as_users_run():
  """The package without the types that only tests check."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


# Constructor, kind of error, and what it says.
WRONG_SIZES = {
  "features, a float": (lambda: BitDense(4.0), TypeError, "features of BitDe"),
  "features, none": (lambda: BitDense(0), ValueError, "is 0.* at least 1"),
  "features, negative": (lambda: BitDense(-3), ValueError, "features.* is -3"),
  "features, a bool": (lambda: BitDense(True), TypeError, "is True.* not bool"),
  "features, a string": (lambda: BitDense("8"), TypeError, "is '8'.* not str"),
  "one of several": (
    lambda: BitDenseGeneral((2, 0)),
    ValueError,
    r"features of BitDenseGeneral is \(2, 0\)",
  ),
  "several for one": (
    lambda: BitDense((4, 4)),
    TypeError,
    r"\(4, 4\).* one in",
  ),
  "window": (lambda: BitConv(4, (3, 0)), ValueError, r"kernel_size.* \(3, 0\)"),
  "window, a float": (lambda: BitConv(4, (3.0,)), TypeError, "kernel_size"),
  "strides": (lambda: BitConv(4, (3,), 0), ValueError, "strides of BitConv is"),
  "groups": (
    lambda: BitConv(4, (3,), feature_group_count=0),
    ValueError,
    "feature_group_count of BitConv is 0",
  ),
}


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize("case", WRONG_SIZES)
def test_wrong_sizes_are_named_where_they_are_given(case):
  make, error, message = WRONG_SIZES[case]
  with pytest.raises(error, match=message):
    make()


@pytest.mark.usefixtures("as_users_run")
def test_sizes_of_numpy_are_taken():
  x = jnp.ones((2, 4, 6))
  two = np.int64(2)
  for layer in (
    BitDense(two),
    BitDenseGeneral(two, axis=np.int64(-1), batch_dims=np.int64(0)),
    BitConv(two, np.int64(3), np.int64(2)),
  ):
    y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    assert y.shape[-1] == 2


@pytest.mark.usefixtures("as_users_run")
def test_wide_inputs_of_numpy_are_taken_as_the_twins_take_them():
  x = np.ones((2, 5, 3))
  for layer in (BitDense(4), BitDenseGeneral(4, axis=(1, 2)), BitConv(4, (3,))):
    for recipe in ("float", "b158"):
      call = layer.clone(recipe=recipe).init_with_output
      y, _ = jax.eval_shape(lambda call=call: call(jax.random.key(0), x))
      assert y.dtype == jnp.float32


@pytest.mark.parametrize("axis", (3, -4, (1, 1), (1, -2), (0, 1)))
def test_axes_that_cannot_be_contracted_are_named(axis):
  layer = BitDenseGeneral(2, axis=axis, batch_dims=(0,))
  with pytest.raises(ValueError, match=r"axis is .*with 3 axes"):
    layer.init(jax.random.key(0), jnp.ones((2, 3, 4)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_named_recipe_runs(recipe):
  x = jax.random.normal(jax.random.key(1), (3, 8))
  y, variables = BitDense(4, recipe=recipe).init_with_output(
    jax.random.key(0), x
  )
  assert np.isfinite(y).all()
  same = BitDense(4, recipe=RECIPES[recipe]).apply(variables, x)
  np.testing.assert_array_equal(y, same)


@pytest.mark.parametrize(
  "layer",
  [
    BitDense(3, recipe="b15"),
    BitDenseGeneral(3, recipe="b15"),
    BitConv(3, (3,), recipe="b15"),
  ],
)
def test_unknown_recipe_is_named_with_the_nearest(layer):
  with pytest.raises(ValueError, match=r"recipe is 'b15'.*did you mean"):
    layer.init(jax.random.key(0), jnp.ones((2, 5, 3)))
