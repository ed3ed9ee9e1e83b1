"""The kernel that sums gradients by weights as integers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import QTensor
from bitnet_jax.ops import bit_conv, bit_dot, lowering
from bitnet_jax.ops.cpu import kernels
from tests.jaxprs import kernel_calls

pytestmark = pytest.mark.usefixtures("compiled")

# Terms around a chunk; columns of tiles and registers, whole and not.
SHAPES = [
  (1, 1, 1),
  (3, 8, 16),
  (5, 9, 17),
  (511, 64, 32),
  (513, 65, 33),
  (1100, 130, 70),
]


def operands(shape, *, spread=0.0):
  """Codes, scales of rows, and rows as unlike in size as ``spread`` says."""
  rng = np.random.default_rng(0)
  m, k, n = shape
  codes = rng.integers(-128, 128, (m, k)).astype(np.int8)
  scale = rng.uniform(0.1, 1, m).astype(np.float32)
  x = rng.normal(size=(m, n)) * np.exp(spread * rng.normal(size=(m, 1)))
  return codes, scale, x.astype(np.float32)


def exact(codes, scale, x):
  return (codes * scale.astype(np.float64)[:, None]).T @ x.astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_whole_numbers_are_exact(shape):
  rng = np.random.default_rng(0)
  codes, _, _ = operands(shape)
  x = rng.integers(-99, 100, (shape[0], shape[2])).astype(np.float32)
  scale = 2.0 ** rng.integers(-1, 2, shape[0]).astype(np.float32)
  found = jax.jit(kernels.transposed_dot)(codes, scale, x)
  np.testing.assert_array_equal(found, exact(codes, scale, x))


# Of equally large rows the sums are better than those of float32, which rounds
# after each term. Of rows that differ a thousandfold they are worse.
@pytest.mark.parametrize("spread, times", [(0.0, 1.0), (3.0, 4.0)])
def test_sums_are_as_good_as_those_of_float32(spread, times, one_device):
  codes, scale, x = operands((2048, 48, 64), spread=spread)
  expected = exact(codes, scale, x)

  def error(found):
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))

  def by_layer(*args):
    q = QTensor(args[0], args[1][:, None])
    like = jax.ShapeDtypeStruct((48, 64), jnp.float32)
    return lowering.DOT_BY_WEIGHT(args[2], q, like=like, precision=None)

  assert kernel_calls(by_layer, codes, scale, x) == 1
  of_kernel = error(jax.jit(by_layer)(codes, scale, x))
  with lowering.portable():
    of_xla = error(jax.jit(lambda *args: by_layer(*args))(codes, scale, x))
  assert of_kernel < times * of_xla
  assert of_kernel < 3e-6


@pytest.mark.parametrize("value", [1.0, -1.0, 1 - 2.0**-24, 3e38, 1.2e-38])
@pytest.mark.parametrize("code", [-128, 127])
def test_extremes_do_not_overflow(value, code):
  codes = np.full((512, 8), code, np.int8)
  x = np.full((512, 16), value, np.float32)
  scale = np.float32([2.0**-16 if value > 1 else 1])
  found = jax.jit(kernels.transposed_dot)(codes, scale, x)
  expected = 512 * code * float(scale[0]) * float(np.float32(value))
  np.testing.assert_allclose(found, expected, rtol=2**-22)


def test_terms_are_off_by_a_share_of_the_largest():
  """Also where the code of the largest is 0, which costs the others bits."""
  codes = np.ones((512, 8), np.int8)
  codes[0] = 0
  x = np.random.default_rng(0).normal(size=(512, 16)).astype(np.float32)
  x[0] = 2.0**12
  scale = np.ones(512, np.float32)
  found = jax.jit(kernels.transposed_dot)(codes, scale, x)
  error = np.abs(found - exact(codes, scale, x))
  assert 0 < error.max() <= 511 * x[0, 0] * 2.0**-23


def test_columns_depend_on_no_other_column():
  codes, scale, x = operands((700, 24, 40))
  multiply = jax.jit(kernels.transposed_dot)
  together = multiply(codes, scale, x)
  np.testing.assert_array_equal(
    multiply(codes[:, 3:9], scale, x[:, 5:]), together[3:9, 5:]
  )
  x[3, 5], x[600, 6], x[699, 7], x[:, 8] = np.nan, np.inf, -np.inf, 0
  found = multiply(codes, scale, x)
  assert np.isnan(found[:, 5:8]).all()
  np.testing.assert_array_equal(found[:, 8], 0)
  rest = np.delete(np.arange(40), [5, 6, 7, 8])
  np.testing.assert_array_equal(found[:, rest], together[:, rest])


@pytest.mark.parametrize("shape", [(0, 16, 16), (4, 0, 16), (4, 16, 0)])
def test_products_may_be_empty(shape):
  found = jax.jit(kernels.transposed_dot)(*operands(shape))
  np.testing.assert_array_equal(found, np.zeros(shape[1:]))


def test_one_scale_is_for_all_rows():
  codes, _, x = operands((20, 16, 16))
  multiply = jax.jit(kernels.transposed_dot)
  one = multiply(codes, np.float32([0.5]), x)
  np.testing.assert_array_equal(
    one, multiply(codes, np.full(20, 0.5, np.float32), x)
  )


# The sizes from which on the kernel is faster, and each of them less by one.
@pytest.mark.parametrize(
  "rows, d_in, d_out, expected",
  [(64, 16, 8, 1), (63, 16, 8, 0), (64, 15, 8, 0), (64, 16, 7, 0)],
)
def test_small_products_are_left_to_xla(
  rows, d_in, d_out, expected, one_device
):
  def gradient(x, w):
    return jax.grad(lambda w: jnp.sum(bit_dot(x, w, "b158")))(w)

  x, w = jnp.ones((rows, d_in)), jnp.ones((d_in, d_out))
  assert kernel_calls(gradient, x, w, of="transposed_dot") == expected


def test_inputs_in_float_are_left_to_xla(one_device):
  def gradient(x, w):
    return jax.grad(lambda w: jnp.sum(bit_dot(x, w, "trilm")))(w)

  x, w = jnp.ones((64, 16)), jnp.ones((16, 16))
  assert kernel_calls(gradient, x, w, of="transposed_dot") == 0


def by_weight(x, geometry):
  """Returns dw of a convolution as a function of g, and the shape of g."""
  q = QTensor(
    jnp.asarray(x),
    jnp.full((len(x),) + (1,) * (x.ndim - 1), 0.5),
    latent=jnp.asarray(x, jnp.float32),
  )
  geometry = {"padding": "VALID", "window_strides": (1,) * (x.ndim - 2)} | (
    geometry
  )
  window = geometry.pop("window")
  w = jnp.ones((*window, x.shape[-1], 20))

  def product(w):
    return bit_conv(q, w, "b158", **geometry)

  return lambda g: jax.vjp(product, w)[1](g)[0], jax.eval_shape(product, w)


def assert_equals_xla(x, geometry):
  """Compares gradients for cotangents of whole numbers, which are exact."""
  dw, y = by_weight(x, geometry)
  rng = np.random.default_rng(0)
  g = jnp.asarray(rng.integers(-9, 10, y.shape), jnp.float32)
  assert kernel_calls(dw, g, of="transposed_conv") == 1
  found = jax.jit(lambda g: dw(g))(g)
  with lowering.portable():
    expected = jax.jit(lambda g: dw(g))(g)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  "channels",
  [3, pytest.param(8, marks=pytest.mark.slow), 70],
)
@pytest.mark.parametrize(
  "geometry",
  [
    {"window": (5,), "padding": "SAME", "window_strides": (2,)},
    {"window": (1, 1), "window_strides": (1, 2)},
    {"window": (3, 3), "padding": "SAME"},
    {
      "window": (2, 3),
      "padding": ((0, 4), (3, 0)),
      "rhs_dilation": (3, 1),
      "window_strides": (2, 1),
    },
    {
      "window": (3, 3),
      "padding": ((-1, 2), (2, -2)),
      "lhs_dilation": (3, 1),
    },
    {"window": (2, 1, 3), "padding": "SAME"},
  ],
  ids=str,
)
def test_convolutions_of_whole_numbers_are_exact(
  geometry, channels, one_device
):
  rng = np.random.default_rng(0)
  space = (90, 11, 8)[: len(geometry["window"])]
  x = rng.integers(-128, 128, (3, *space, channels)).astype(np.int8)
  assert_equals_xla(x, geometry)


def test_packed_codes_are_bounded_by_groups_of_chunks(one_device):
  """More terms than are packed at once: in parts, as in one."""
  rng = np.random.default_rng(0)
  x = rng.integers(-128, 128, (9, 32, 32, 64)).astype(np.int8)
  assert_equals_xla(x, {"window": (3, 3), "padding": "SAME"})


@pytest.mark.parametrize(
  "batch, inputs, positions", [(0, 5, 3), (2, 5, 0), (2, 0, 3)]
)
def test_convolutions_may_be_empty(batch, inputs, positions):
  codes = np.ones((batch, inputs, 9), np.int8)
  x = np.ones((batch, positions, 17), np.float32)
  places = np.full((positions, 2), -1, np.int32)
  scale = np.ones(1, np.float32)
  found = jax.jit(kernels.transposed_conv)(codes, scale, x, places)
  np.testing.assert_array_equal(found, np.zeros((2, 9, 17)))


def test_convolutions_in_groups_are_left_to_xla(one_device):
  dw, y = by_weight(np.ones((4, 30, 32), np.int8), {"window": (3,)})
  assert kernel_calls(dw, jnp.ones(y.shape), of="transposed_conv") == 1

  def grouped(x, w):
    options = dict(window_strides=(1,), padding="SAME", feature_group_count=2)
    return jax.grad(lambda w: jnp.sum(bit_conv(x, w, "b158", **options)))(w)

  x, w = jnp.ones((4, 30, 32)), jnp.ones((3, 16, 32))
  assert kernel_calls(grouped, x, w, of="transposed_conv") == 0
