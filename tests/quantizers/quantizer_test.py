"""Tests of one operand's rule."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.quantizers import Quantizer
from bitnet_jax.quantizers.measures import MEASURES
from bitnet_jax.quantizers.quantizer import ROUNDINGS

pytestmark = pytest.mark.usefixtures("strict_dtypes")

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
KEY = jax.random.key(0)

# Shares are of 2**18 draws: their standard error is below 0.001.
SHARE_TOLERANCE = 0.003


def ternary(measure="absmean", **options):
  return Quantizer(measure, (-1, 1), **options)


INT8 = Quantizer("absmax", (-128, 127), axis=-1)


@pytest.mark.parametrize(
  "quantizer, codes, scale",
  [
    # 0.25 / 0.5 is a tie, which rounds to even.
    (ternary("absmean"), [[1, -1], [0, 0]], 0.5),
    (ternary("absmedian"), [[1, -1], [1, 0]], 0.25),
    (ternary("absmax"), [[0, -1], [0, 0]], 1.25),
    (ternary(rounding="sign"), [[1, -1], [1, 1]], 0.5),
    # Above 0.7 * 0.5 lie 0.5 and 1.25.
    (ternary(rounding="threshold"), [[1, -1], [0, 0]], 0.875),
    (Quantizer("absmax", (-5, 4)), [[2, -5], [1, 0]], 0.25),
  ],
)
def test_quantize_equals_values_worked_by_hand(quantizer, codes, scale):
  # Magnitudes with mean 0.5, lower median 0.25 and largest 1.25.
  w = jnp.array([[0.5, -1.25], [0.25, 0.0]])
  q = quantizer.quantize(w)
  np.testing.assert_array_equal(q.qvalue, codes)
  np.testing.assert_array_equal(q.scale, [[scale]])
  assert (q.qvalue.dtype, q.scale.dtype) == (jnp.int8, jnp.float32)
  np.testing.assert_array_equal(q.dequantize(), np.array(codes) * scale)


def test_ties_round_to_even():
  # The largest is 4, so the factor is 1.
  x = jnp.array([4.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
  codes = Quantizer("absmax", (-4, 4)).quantize(x).qvalue
  np.testing.assert_array_equal(codes, [4, 0, 2, 2, 0, -2, -2])


def test_codes_come_from_a_factor_not_from_a_division_by_the_scale():
  # All pixel values, in images whose brightest pixel is 1 to 255.
  brightest = np.arange(1, 256)[:, None]
  pixels = np.minimum(np.arange(256), brightest).astype(np.float32) / 255
  q = Quantizer("absmax", (-127, 127), axis=-1).quantize(jnp.array(pixels))
  m, largest = pixels.max(-1, keepdims=True), np.float32(127)
  np.testing.assert_array_equal(q.qvalue, np.round(pixels * (largest / m)))
  divided = np.round(pixels / (m / largest))
  assert np.mean(divided != np.asarray(q.qvalue)) > 1e-4


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("measure", MEASURES)
def test_ternary_codes_are_exactly_minus_one_zero_one(measure, rounding):
  x = jax.random.normal(jax.random.key(1), (64, 32))
  q = ternary(measure, rounding=rounding).quantize(x, key=KEY)
  expected = [-1, 1] if rounding == "sign" else [-1, 0, 1]
  np.testing.assert_array_equal(np.unique(q.qvalue), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_is_quantized_in_float32(dtype):
  x = jax.random.normal(KEY, (8, 64), dtype)
  q, expected = INT8.quantize(x), INT8.quantize(x.astype(jnp.float32))
  np.testing.assert_array_equal(q.qvalue, expected.qvalue)
  np.testing.assert_array_equal(q.scale, expected.scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_zeros_map_to_zeros_with_the_least_scale(measure, dtype):
  x = jnp.zeros((3, 4), dtype)
  q = Quantizer(measure, (-128, 127), axis=-1, eps=1e-3).quantize(x)
  np.testing.assert_array_equal(q.qvalue, np.zeros((3, 4)))
  np.testing.assert_array_equal(
    q.scale, np.full((3, 1), np.float32(1e-3) / 128)
  )


@pytest.mark.parametrize("measure", MEASURES)
def test_subnormals_map_to_zeros(measure):
  q = ternary(measure).quantize(jnp.full((4,), 1e-40))
  np.testing.assert_array_equal(q.qvalue, np.zeros(4))
  np.testing.assert_array_equal(q.scale, [np.float32(1e-5)])


@pytest.mark.parametrize("value", (3.0, -0.25))
@pytest.mark.parametrize("shape", ((1,), (1, 1), (2, 5)))
@pytest.mark.parametrize("measure", MEASURES)
def test_equal_values_keep_their_value(measure, shape, value):
  q = ternary(measure).quantize(jnp.full(shape, value))
  np.testing.assert_array_equal(q.qvalue, np.full(shape, np.sign(value)))
  np.testing.assert_array_equal(q.dequantize(), np.full(shape, value))


def test_measure_below_eps_is_raised_to_it():
  q = ternary(eps=0.5).quantize(jnp.array([0.2, -0.4]))
  np.testing.assert_array_equal(q.scale, [0.5])
  np.testing.assert_array_equal(q.qvalue, [0, -1])


@pytest.mark.slow
@pytest.mark.parametrize("bad", (np.nan, np.inf, -np.inf))
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("measure", MEASURES)
def test_bad_value_makes_the_scale_of_its_group_nan(measure, rounding, bad):
  x = jnp.array([[1.0, bad, 2.0], [1.0, -1.0, 2.0]])
  per_token = ternary(measure, rounding=rounding, axis=-1)
  scale = per_token.quantize(x, key=KEY).scale
  np.testing.assert_array_equal(np.isnan(scale), [[True], [False]])
  per_tensor = ternary(measure, rounding=rounding)
  assert np.isnan(per_tensor.quantize(x, key=KEY).dequantize()).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_values_whose_reciprocal_is_subnormal_do_not_become_zeros(measure):
  x = jnp.array([[8e37, -8e37], [9e37, -9e37]])
  q = ternary(measure, axis=-1).quantize(x)
  np.testing.assert_array_equal(q.scale, [[np.float32(8e37)], [np.nan]])
  np.testing.assert_array_equal(q.qvalue[0], [1, -1])
  wide = Quantizer(measure, (-8, 7), axis=-1).quantize(x)
  np.testing.assert_array_equal(wide.qvalue, [[7, -8]] * 2)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("measure", MEASURES)
def test_empty_batch_gives_empty_codes(measure, rounding):
  quantizer = ternary(measure, rounding=rounding, axis=-1)
  q = quantizer.quantize(jnp.zeros((0, 3)), key=KEY)
  assert (q.qvalue.shape, q.scale.shape) == ((0, 3), (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
  "axis, axes, shape",
  [
    (None, None, (1, 1, 1)),
    (-1, None, (2, 3, 1)),
    (0, None, (1, 3, 4)),
    (0, (0, 1), (1, 1, 4)),
    (-1, (1, 2), (2, 1, 1)),
  ],
)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_groups_are_quantized_on_their_own(rounding, axis, axes, shape):
  x = jax.random.normal(KEY, (2, 3, 4))
  quantizer = ternary(axis=axis, rounding=rounding)
  q = quantizer.quantize(x, axes=axes, key=KEY)
  assert q.scale.shape == shape
  if rounding == "stochastic":
    return  # Draws differ with the shape.
  alone = ternary(rounding=rounding)
  for index in np.ndindex(shape):
    group = tuple(
      slice(None) if n == 1 else slice(i, i + 1)
      for i, n in zip(index, shape, strict=True)
    )
    expected = alone.quantize(x[group])
    np.testing.assert_array_equal(q.qvalue[group], expected.qvalue)
    # Sums of the same few terms in another order.
    np.testing.assert_allclose(q.scale[index], expected.scale.item(), rtol=1e-6)


@pytest.mark.parametrize(
  "measure, expected", [("absmean", 0.310), ("absmedian", 0.264)]
)
def test_share_of_zeros_of_gaussian_weights(measure, expected):
  codes = ternary(measure).quantize(jax.random.normal(KEY, (512, 512))).qvalue
  assert np.mean(codes == 0) == pytest.approx(expected, abs=SHARE_TOLERANCE)


@pytest.mark.parametrize("measure", ("absmean", "absmedian"))
def test_share_of_zeros_of_uniform_weights(measure):
  w = jax.random.uniform(KEY, (512, 512), minval=-0.1, maxval=0.1)
  codes = ternary(measure).quantize(w).qvalue
  assert np.mean(codes == 0) == pytest.approx(0.25, abs=SHARE_TOLERANCE)


@pytest.mark.parametrize("value", (0.25, -0.5, 1.0, -3.0))
def test_stochastic_rounding_keeps_the_sign_in_proportion(value):
  x = jnp.full((512, 512), value)
  quantizer = ternary(rounding="stochastic", eps=1.0)
  scale = max(abs(value), 1.0)
  codes = quantizer.quantize(x, key=KEY).qvalue
  assert set(np.unique(codes)) <= {0, int(np.sign(value))}
  kept = min(abs(value) / scale, 1)
  assert np.mean(codes != 0) == pytest.approx(kept, abs=SHARE_TOLERANCE)


def test_stochastic_rounding_keeps_what_exceeds_the_scale():
  x = jnp.array([4.0, -3.0] + [0.0] * 6)  # The mean magnitude is 7 / 8.
  for seed in range(8):
    key = jax.random.key(seed)
    codes = ternary(rounding="stochastic").quantize(x, key=key).qvalue
    np.testing.assert_array_equal(codes, [1, -1] + [0] * 6)


def test_stochastic_rounding_is_a_function_of_its_key():
  x = jax.random.normal(KEY, (16, 16))
  quantizer = ternary(rounding="stochastic")
  first, again, other = (
    quantizer.quantize(x, key=jax.random.key(seed)).qvalue for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)


def test_stochastic_rounding_without_a_key_is_an_error():
  with pytest.raises(ValueError, match="stochastic rounding needs a key"):
    ternary(rounding="stochastic").quantize(jnp.ones(3))


def test_in_range_says_what_clipping_changes():
  x = jnp.array([0.4, -1.4, 1.6, -2.0, 1.0, 0.4, 0.6, 0.6])  # Mean 1.
  inside = ternary().in_range(x)
  np.testing.assert_array_equal(inside, [1, 1, 0, 0, 1, 1, 1, 1])
  # 128 at absmax is clipped to 127.
  inside = INT8.in_range(jnp.array([[1.0, -1.0, 0.5]]))
  np.testing.assert_array_equal(inside, [[0, 1, 1]])


def test_in_range_takes_nothing_from_the_gradient_of_a_bad_group():
  x = jnp.array([[1.0, jnp.nan, 0.5], [1.0, jnp.inf, 0.5]])
  assert INT8.in_range(x).all()


@pytest.mark.parametrize(
  "arguments, message",
  [
    (dict(measure="absmode"), "measure is 'absmode'.*'absmean'.*'absmedian'"),
    (dict(rounding="down"), "rounding is 'down'.*'nearest'.*'stochastic'"),
    (dict(axis=1), "axis is 1.*None, 0, -1"),
    (dict(range=(-129, 127)), r"range is \(-129, 127\).*-128 to 127"),
    (dict(range=(0, 128)), r"range is \(0, 128\)"),
    (dict(range=(1, 1)), r"range is \(1, 1\).*low < high"),
    (dict(range=(-2, 1), rounding="sign"), r"'sign'.*\(-1, 1\).*\(-2, 1\)"),
    (dict(eps=0.0), "eps is 0.0.*positive"),
    (dict(eps=-1.0), "eps is -1.0.*positive"),
    (dict(eps=np.nan), "eps is nan.*positive"),
  ],
)
def test_bad_field_is_named_with_its_value_and_choices(arguments, message):
  with pytest.raises(ValueError, match=message):
    Quantizer(**{"measure": "absmean", "range": (-1, 1), **arguments})


def test_quantizer_is_a_frozen_value():
  assert ternary() == ternary()
  assert hash(ternary()) == hash(ternary())
  assert ternary() != ternary(eps=1e-6)
  with pytest.raises(dataclasses.FrozenInstanceError):
    ternary().eps = 1.0


def test_jit_gives_the_codes_of_eager():
  x = jax.random.normal(KEY, (32, 48))
  q, expected = jax.jit(INT8.quantize)(x), INT8.quantize(x)
  np.testing.assert_array_equal(q.qvalue, expected.qvalue)
  np.testing.assert_array_equal(q.scale, expected.scale)
