"""Tests of the quantized matrix product."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, QTensor, Quantizer, Recipe
from bitnet_jax.ops import bit_dot, compute
from bitnet_jax.ops.compute import choose_compute
from tests.jaxprs import equations

B158 = RECIPES["b158"]
DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
PER_CHANNEL = Quantizer("absmean", (-1, 1), axis=0)
PER_TENSOR = Quantizer("absmax", (-128, 127))

# Against float64: a few float32 roundings, relative to the largest entry.
FLOAT32_TOLERANCE = 1e-5
# At strength 1 the operands are blended instead of replaced.
STRENGTH_ONE_TOLERANCE = 1e-6

VARIANTS = {
  "both": Recipe(),
  "clipped": Recipe(ste="clipped"),
  "bias_in_product": Recipe(bias_in_product=True),
  "clipped, bias_in_product": Recipe(ste="clipped", bias_in_product=True),
  "per channel, per tensor": Recipe(PER_CHANNEL, PER_TENSOR),
  "median": RECIPES["bitlinear"],
  "weights only": RECIPES["trilm"],
  "weights only, clipped": dataclasses.replace(RECIPES["trilm"], ste="clipped"),
  "acts only": Recipe(None),
  "acts only, bias_in_product": Recipe(None, bias_in_product=True),
  "int4": RECIPES["int4"],
}


def operands(batch=(3, 2), d_in=24, d_out=5, dtype=jnp.float32, seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  shapes = (*batch, d_in), (d_in, d_out), (d_out,), (*batch, d_out)
  return [
    jax.random.normal(key, shape, dtype)
    for key, shape in zip(keys, shapes, strict=True)
  ]


def assert_close(actual, expected, tolerance=FLOAT32_TOLERANCE):
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected)
  assert actual.shape == expected.shape
  largest = np.max(np.abs(expected), initial=0)
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest)


def quantized(quantizer, values, axis):
  """Codes, scale and what was in range, in NumPy."""
  values = np.asarray(values, np.float32)
  if quantizer is None:
    return values.astype(np.float64), 1.0, True
  axis = None if quantizer.axis is None else axis
  low, high = quantizer.range
  largest = np.float32(max(abs(low), abs(high)))
  magnitudes = np.abs(values)
  if quantizer.measure == "absmax":
    m = magnitudes.max(axis, keepdims=True)
  elif quantizer.measure == "absmean":
    m = magnitudes.mean(axis, keepdims=True)
  else:
    ordered = np.sort(magnitudes.ravel())
    m = ordered[(len(ordered) - 1) // 2].reshape((1,) * values.ndim)
  m = np.maximum(m, np.float32(quantizer.eps))
  rounded = np.round(values * (largest / m))
  scale = (m / largest).astype(np.float64)
  inside = (low <= rounded) & (rounded <= high)
  return np.clip(rounded, low, high).astype(np.float64), scale, inside


def reference(recipe, x, w, bias, g):
  """The formulas of the contract in float64: output and gradients."""
  codes_x, scale_x, x_inside = quantized(recipe.acts, x, -1)
  codes_w, scale_w, w_inside = quantized(recipe.weights, w, 0)
  bias, g = np.asarray(bias, np.float64), np.asarray(g, np.float64)
  scale = scale_x * scale_w
  y, g_bias = codes_x @ codes_w, g
  if recipe.bias_in_product:
    y, g_bias = (y + bias) * scale, g * scale
  else:
    y = y * scale + bias
  dx = (g * scale_w) @ codes_w.T
  flat = lambda a: a.reshape(-1, a.shape[-1])  # noqa: E731
  dw = flat(codes_x * scale_x).T @ flat(g)
  if recipe.ste == "clipped":
    dx, dw = dx * x_inside, dw * w_inside
  return y, dx, dw, flat(g_bias).sum(0)


@pytest.mark.parametrize("recipe", VARIANTS.values(), ids=VARIANTS)
def test_output_and_gradients_equal_their_formulas(recipe, strict_dtypes):
  x, w, bias, g = operands()
  y, vjp = jax.vjp(lambda x, w, b: bit_dot(x, w, recipe, bias=b), x, w, bias)
  for actual, expected in zip(
    (y, *vjp(g)), reference(recipe, x, w, bias, g), strict=True
  ):
    assert_close(actual, expected)


def test_clipped_gradient_vanishes_outside_the_range():
  x, w, _, g = operands()
  recipe = Recipe(ste="clipped")
  dx, dw = jax.vjp(lambda x, w: bit_dot(x, w, recipe), x, w)[1](g)
  w_inside = np.round(np.abs(w) / np.mean(np.abs(w))) <= 1
  np.testing.assert_array_equal(np.asarray(dw) != 0, w_inside)
  assert 0 < w_inside.sum() < w_inside.size
  # A token whose largest entry is positive reaches code 128, and clips it.
  x_inside = np.asarray(x) < np.abs(x).max(-1, keepdims=True)
  np.testing.assert_array_equal(np.asarray(dx) != 0, x_inside)


@pytest.mark.parametrize(
  "recipe", ("b158", "trilm", VARIANTS["acts only"]), ids=str
)
@pytest.mark.parametrize(
  "x_dtype, w_dtype", list(itertools.product(DTYPES, DTYPES)), ids=str
)
def test_gradients_have_the_dtypes_of_their_operands(recipe, x_dtype, w_dtype):
  def product(x, w, bias):
    return bit_dot(x, w, recipe, bias=bias)

  def gradients(x, w, bias):
    y, vjp = jax.vjp(product, x, w, bias)
    return y, *vjp(jnp.ones_like(y))

  x, w, bias, _ = operands()
  arguments = x.astype(x_dtype), w.astype(w_dtype), bias.astype(w_dtype)
  y, *grads = jax.eval_shape(gradients, *arguments)
  assert y.dtype == jnp.promote_types(x_dtype, w_dtype)
  assert [g.dtype for g in grads] == [x_dtype, w_dtype, w_dtype]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", (jnp.bfloat16, jnp.float16))
def test_half_precision_gradients_are_computed_in_float32(dtype):
  x, w, bias, g = operands(dtype=dtype)
  _, vjp = jax.vjp(lambda x, w: bit_dot(x, w, B158, bias=bias), x, w)
  _, dx, dw, _ = reference(B158, x, w, bias, g)
  # Half of the spacing of the dtype, relative to each entry.
  tolerance = dict(rtol=jnp.finfo(dtype).eps / 2 + 1e-5, atol=1e-6)
  for actual, expected in zip(vjp(g), (dx, dw), strict=True):
    actual = np.asarray(actual, np.float64)
    np.testing.assert_allclose(actual, expected, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_dtype_is_as_asked(dtype):
  x, w, bias, _ = operands()
  y = jax.eval_shape(lambda: bit_dot(x, w, B158, bias=bias, dtype=dtype))
  assert y.dtype == dtype


def test_scales_come_from_the_operands_before_the_cast():
  x, w, _, _ = operands()
  full = bit_dot(x, w, B158)
  np.testing.assert_array_equal(
    bit_dot(x, w, B158, dtype=jnp.bfloat16), full.astype(jnp.bfloat16)
  )


@pytest.mark.slow
@pytest.mark.parametrize("batch", ((), (1,), (0,), (2, 3, 4)), ids=str)
@pytest.mark.parametrize("d_in", (1, 7))
def test_any_number_of_tokens_gives_the_product_of_each(batch, d_in):
  x, w, bias, g = operands(batch, d_in)
  y, vjp = jax.vjp(lambda x, w: bit_dot(x, w, B158, bias=bias), x, w)
  expected = reference(B158, x.reshape(-1, d_in), w, bias, g.reshape(-1, 5))
  assert_close(y, expected[0].reshape(*batch, 5)) if x.size else None
  dx, dw = vjp(g)
  assert (y.shape, dx.shape) == ((*batch, 5), x.shape)
  assert_close(dw, expected[2])


@pytest.mark.parametrize("bad", (np.nan, np.inf))
@pytest.mark.parametrize("name", ("b158", "b158_median", "int4"))
@pytest.mark.parametrize("compute", ("int8", "float"))
def test_bad_value_makes_its_token_nan_and_a_bad_weight_all(compute, name, bad):
  recipe = dataclasses.replace(RECIPES[name], compute=compute)
  x, w, bias, _ = operands((3,))
  y = bit_dot(x.at[1, 0].set(bad), w, recipe, bias=bias)
  np.testing.assert_array_equal(np.isnan(y).all(-1), [False, True, False])
  np.testing.assert_array_equal(np.isnan(y).any(-1), [False, True, False])
  assert np.isnan(bit_dot(x, w.at[0, 0].set(bad), recipe, bias=bias)).all()


def product_dtypes(recipe, d_in=4, batch=(2,)):
  x = jax.ShapeDtypeStruct((*batch, d_in), jnp.float32)
  w = jax.ShapeDtypeStruct((d_in, 3), jnp.float32)
  jaxpr = jax.make_jaxpr(lambda x, w: bit_dot(x, w, recipe))(x, w)
  (eqn,) = equations(jaxpr.jaxpr, "dot_general")
  return [v.aval.dtype for v in (*eqn.invars, *eqn.outvars)]


def test_product_multiplies_int8_into_int32():
  assert product_dtypes("b158") == [jnp.int8, jnp.int8, jnp.int32]


def test_float_product_sums_codes_in_float32():
  recipe = dataclasses.replace(B158, compute="float")
  assert product_dtypes(recipe)[-1] == jnp.float32


@pytest.mark.parametrize("rows", (0, 1, 2))
def test_auto_takes_integers_for_any_number_of_rows(rows):
  assert product_dtypes("b158", batch=(rows,))[-1] == jnp.int32


def test_single_row_is_padded_on_cpu_and_gives_the_same():
  x, w, bias, _ = operands((), 24, 5)
  one, alone = (bit_dot(a, w, B158, bias=bias) for a in (x[None], x))
  two = bit_dot(jnp.stack([x, x]), w, B158, bias=bias)
  np.testing.assert_array_equal(one, two[:1])
  np.testing.assert_array_equal(alone, two[0])
  jaxpr = jax.make_jaxpr(lambda x: bit_dot(x, w, B158))(x[None])
  (eqn,) = equations(jaxpr.jaxpr, "dot_general")
  assert eqn.invars[0].aval.shape == (2, 24)


@pytest.fixture
def foreign_backend(monkeypatch):
  """A backend that nobody knows; takes back what was found out about it."""
  monkeypatch.setattr(jax, "default_backend", lambda: "abacus")
  compute.has_int8_products.cache_clear()
  yield
  compute.has_int8_products.cache_clear()


def test_unknown_backend_with_int8_products_gets_them(foreign_backend, caplog):
  assert product_dtypes("b158")[-1] == jnp.int32
  assert not caplog.records


def test_backend_without_int8_products_gets_floats_and_says_so_once(
  foreign_backend, monkeypatch, caplog
):
  def refuse(*args, **kwargs):
    raise NotImplementedError("no int8 beads")

  monkeypatch.setattr(jnp, "matmul", refuse)
  for _ in range(2):
    assert product_dtypes("b158")[-1] == jnp.float32
  (record,) = caplog.records
  assert "abacus" in record.getMessage()
  assert "no int8 beads" in record.getMessage()


def test_strength_with_integers_asked_for_is_refused():
  x, w, _, _ = operands()
  recipe = dataclasses.replace(B158, compute="int8")
  with pytest.raises(ValueError, match=r"compute is 'int8'.*strength"):
    bit_dot(x, w, recipe, strength=0.5)


@pytest.mark.parametrize(
  "recipe, terms", [(B158, 131072), (RECIPES["int4"], 18724)]
)
def test_float_beyond_its_exact_range_is_an_error_with_the_terms(recipe, terms):
  recipe = dataclasses.replace(recipe, compute="float")
  choose = lambda n: choose_compute(recipe, terms=n, slow_in_int8=False)  # noqa: E731
  assert choose(terms) == "float"
  message = f"{terms + 1} terms.*up to {terms} terms"
  with pytest.raises(ValueError, match=message):
    choose(terms + 1)
  x, w = jax.ShapeDtypeStruct((2, terms + 1), jnp.float32), None
  w = jax.ShapeDtypeStruct((terms + 1, 1), jnp.float32)
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda x, w: bit_dot(x, w, recipe), x, w)


def kept(recipe, dtype=jnp.float32):
  """What stays in memory for the gradient, as (dtype, shape) pairs."""
  x, w, bias, _ = operands((8,), 24, 5, dtype)
  _, vjp = jax.vjp(lambda x, w, b: bit_dot(x, w, recipe, bias=b), x, w, bias)
  return sorted(
    (str(leaf.dtype), leaf.shape) for leaf in jax.tree.leaves(vjp) if leaf.size
  )


CODES = [("int8", (8, 24)), ("int8", (24, 5))]
SCALES = [("float32", (1, 1)), ("float32", (8, 1))]


@pytest.mark.parametrize(
  "recipe, expected",
  [
    (VARIANTS["both"], SCALES + CODES),
    (VARIANTS["bias_in_product"], SCALES + CODES),
    (
      VARIANTS["clipped"],
      [("bool", (8, 24)), ("bool", (24, 5)), *SCALES, *CODES],
    ),
    (
      VARIANTS["weights only"],
      [("float32", (1, 1)), ("float32", (8, 24)), ("int8", (24, 5))],
    ),
    (
      VARIANTS["acts only"],
      [("float32", (8, 1)), ("float32", (24, 5)), ("int8", (8, 24))],
    ),
  ],
  ids=("both", "bias_in_product", "clipped", "weights only", "acts only"),
)
def test_what_is_kept_for_the_gradient_is_codes_and_scales(recipe, expected):
  assert kept(recipe) == sorted(expected)


def test_what_is_kept_does_not_grow_with_the_dtype():
  assert kept(B158, jnp.bfloat16) == kept(B158, jnp.float32)


@pytest.mark.parametrize("name", ("b158", "bitlinear", "trilm"))
def test_strength_zero_is_the_float_product(name):
  x, w, bias, _ = operands()
  y = bit_dot(x, w, name, bias=bias, strength=0.0)
  expected = np.asarray(x, np.float64) @ np.asarray(w) + np.asarray(bias)
  assert_close(y, expected)


@pytest.mark.parametrize("recipe", VARIANTS.values(), ids=VARIANTS)
def test_strength_one_equals_full_quantization(recipe, strict_dtypes):
  x, w, bias, g = operands()
  results = []
  for strength in (None, jnp.float32(1.0)):
    y, vjp = jax.vjp(
      lambda *a, s=strength: bit_dot(*a[:2], recipe, bias=a[2], strength=s),
      x,
      w,
      bias,
    )
    results.append((y, *vjp(g)))
  for full, phased in zip(*results, strict=True):
    assert_close(phased, full, STRENGTH_ONE_TOLERANCE)


def test_strength_blends_the_operands():
  x, w, _, _ = operands()
  blended = []
  for quantizer, a in ((B158.acts, x), (B158.weights, w)):
    blended.append(a + 0.25 * (quantizer.quantize(a).dequantize() - a))
  expected = np.matmul(*(np.asarray(a, np.float64) for a in blended))
  assert_close(bit_dot(x, w, "b158", strength=0.25), expected)


def test_strength_changes_without_compiling_again():
  x, w, _, _ = operands()
  traces = []

  @jax.jit
  def loss(w, strength):
    traces.append(strength)
    return jnp.sum(bit_dot(x, w, "b158", strength=strength) ** 2)

  values = [float(loss(w, s)) for s in (0.0, 0.5, 1.0)]
  assert len(traces) == 1
  assert len(set(values)) == 3


@pytest.mark.parametrize("strength", (0.0, 0.5, 1.0))
def test_gradient_flows_at_any_strength(strength):
  x, w, _, g = operands()
  dx, dw = jax.vjp(lambda *a: bit_dot(*a, "b158", strength=strength), x, w)[1](
    g
  )
  for gradient in (dx, dw):
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient) != 0).all()


def test_quantized_weights_are_taken_as_they_are():
  x, w, bias, g = operands()
  q = B158.weights.quantize(w)
  y, vjp = jax.vjp(lambda x: bit_dot(x, q, B158, bias=bias), x)
  np.testing.assert_array_equal(y, bit_dot(x, w, B158, bias=bias))
  assert_close(vjp(g)[0], reference(B158, x, w, bias, g)[1])


@pytest.mark.parametrize(
  "recipe, strength", [("float", None), (Recipe(None), None), ("b158", 0.5)]
)
def test_quantized_weights_where_float_ones_are_needed_are_refused(
  recipe, strength
):
  x, w, _, _ = operands()
  with pytest.raises(ValueError, match="w is a QTensor"):
    bit_dot(x, B158.weights.quantize(w), recipe, strength=strength)


def test_stochastic_product_is_a_function_of_its_key():
  stochastic = dataclasses.replace(B158.weights, rounding="stochastic")
  recipe = Recipe(stochastic)
  x, w, _, _ = operands()
  first, again, other = (
    bit_dot(x, w, recipe, key=jax.random.key(seed)) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first, again)
  assert np.any(np.asarray(first) != np.asarray(other))
  with pytest.raises(ValueError, match="needs a key"):
    bit_dot(x, w, recipe)


@pytest.mark.parametrize(
  "x_shape, w_shape",
  [((2, 3), (4, 5)), ((2, 3), (3,)), ((2, 3), (3, 4, 5)), ((), (1, 1))],
)
def test_shapes_that_do_not_match_are_named(x_shape, w_shape):
  x, w = jnp.zeros(x_shape), jnp.zeros(w_shape)
  with pytest.raises((ValueError, TypeError)) as error:
    bit_dot(x, w, "b158")
  assert isinstance(error.value, TypeError) or str(w_shape) in str(error.value)


def test_unknown_recipe_is_named():
  with pytest.raises(ValueError, match="recipe is 'b159'"):
    bit_dot(jnp.ones((2, 3)), jnp.ones((3, 4)), "b159")


def test_forward_mode_is_refused():
  x, w, _, _ = operands()
  with pytest.raises(TypeError):
    jax.jvp(lambda x: bit_dot(x, w, "b158"), (x,), (x,))


def test_qtensor_is_codes_times_scale():
  q = QTensor(jnp.array([[1, -1]], jnp.int8), jnp.array([[0.5]]))
  np.testing.assert_array_equal(q.dequantize(), [[0.5, -0.5]])
  assert q.dtype == jnp.float32


@pytest.mark.parametrize("recipe", ["float", "b158"])
def test_products_contract_a_single_axis_on_one_cpu(monkeypatch, recipe):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 3, 8)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(8, 4)), jnp.float32)

  def step(x, w):
    def loss(x, w):
      return jnp.sum(bit_dot(x, w, recipe) ** 2)

    return jax.value_and_grad(loss, (0, 1))(x, w)

  expected = step(x, w)
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  jaxpr = jax.make_jaxpr(lambda *a: step(*a))(x, w)
  dots = [*equations(jaxpr.jaxpr, "dot_general")]
  axes = [eqn.params["dimension_numbers"][0] for eqn in dots]
  assert len(axes) == 3
  assert all(len(left) == len(right) == 1 for left, right in axes)
  found = step(x, w)
  jax.tree.map(lambda *a: np.testing.assert_allclose(*a, 1e-5), found, expected)


# Beyond what an int32 holds for int8 times int8: 2**31 / (128 * 127) terms.
MANY = 140_000


def codes_of(quantizer, values):
  q = quantizer.quantize(values)
  return np.asarray(q.codes, np.int64), np.asarray(q.scale, np.float64)


@pytest.mark.parametrize("kind", ("ones", "normal"))
def test_sums_beyond_int32_do_not_wrap(kind):
  recipe = RECIPES["int8"]
  x, w = jnp.ones((2, MANY)), jnp.ones((MANY, 3))
  if kind == "normal":
    x, w, *_ = operands((2,), MANY, 3)
    x, w = 1 + x / 256, 1 + w / 256
  x_codes, x_scale = codes_of(recipe.acts, x)
  w_codes, w_scale = codes_of(recipe.weights, w)
  sums = x_codes @ w_codes
  assert np.abs(sums).max() >= 2**31
  assert_close(bit_dot(x, w, recipe), sums * x_scale * w_scale)


@pytest.mark.slow
@pytest.mark.parametrize("operand", (0, 1), ids=("x", "w"))
def test_gradients_that_sum_many_integers_do_not_wrap(operand):
  recipe = dataclasses.replace(RECIPES["int8"], backward="int8")
  shapes = [((2, 4), (4, MANY)), ((MANY, 4), (4, 2))][operand]
  x, w = map(jnp.ones, shapes)

  def value(x, w):
    return jnp.sum(bit_dot(x, w, recipe, key=jax.random.key(0)))

  gradient = jax.grad(value, operand)(x, w)
  other = recipe.weights.quantize(w) if operand == 0 else None
  other = other or recipe.acts.quantize(x)
  expected = MANY * float(other.dequantize().ravel()[0])
  np.testing.assert_allclose(gradient, expected, rtol=0.01)


def test_bias_of_another_shape_is_refused():
  x, w, bias, _ = operands()
  for wrong in (bias[:1], bias[:-1]):
    with pytest.raises(ValueError, match=r"bias has the shape .*\(5,\)"):
      bit_dot.__wrapped__(x, w, B158, bias=wrong)


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"bitlinear"}))
def test_empty_contraction_gives_the_bias(name):
  x, w, bias = jnp.zeros((2, 0)), jnp.zeros((0, 3)), jnp.arange(3.0)
  y = bit_dot(x, w, name, bias=bias)
  np.testing.assert_array_equal(y, np.broadcast_to(bias, (2, 3)))
