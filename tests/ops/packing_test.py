"""Codes in fewer bits, and back."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitnet_jax import QTensor
from bitnet_jax.ops import bit_dot, pack, unpack
from bitnet_jax.ops.packing import axis_to_pack

CODES = hnp.arrays(
  np.int8,
  hnp.array_shapes(min_dims=1, max_dims=3, max_side=9),
  elements=st.integers(-1, 1),
)


@hypothesis.settings(max_examples=5, deadline=None)
@hypothesis.given(
  codes=CODES,
  axis=st.integers(-3, 2),
  layout=st.sampled_from([("quad", 4), ("base3", 5)]),
)
def test_codes_come_back(codes, axis, layout):
  axis, (name, in_a_byte) = axis % codes.ndim, layout
  packed = pack(jnp.asarray(codes), name, axis)
  assert packed.shape == codes.shape
  assert packed.ndim == codes.ndim
  assert packed.data.dtype == jnp.uint8
  assert packed.data.shape[axis] == -(-codes.shape[axis] // in_a_byte)
  np.testing.assert_array_equal(unpack(packed), codes)


def test_four_neighbours_share_a_byte():
  packed = pack(jnp.array([1, 0, -1, 1, -1], jnp.int8))
  assert packed.data.tolist() == [0b10_00_01_10, 0b01_01_01_00]


def test_five_neighbours_share_a_byte_in_base_three():
  packed = pack(jnp.array([1, 0, -1, 1, -1, 1], jnp.int8), "base3")
  assert packed.data.tolist() == [2 + 3 + 0 + 2 * 27 + 0, 2 + 3 + 9 + 27 + 81]


@pytest.mark.parametrize(
  ("shape", "axis"), [((8, 6), 0), ((6, 8), 1), ((6, 6), 0), ((4, 3, 1, 8), 3)]
)
def test_packed_axis_holds_whole_bytes_if_one_does(shape, axis):
  assert axis_to_pack(shape) == axis


def test_one_of_a_stack_is_unpacked_alone():
  codes = jax.random.randint(jax.random.key(0), (3, 8, 5), -1, 2, jnp.int8)
  packed = pack(codes, axis=1)
  _, found = jax.lax.scan(lambda c, one: (c, unpack(one)), 0, packed)
  np.testing.assert_array_equal(found, codes)


def test_unknown_layout_is_named():
  with pytest.raises(ValueError, match=r"layout is 'octal'.*quad"):
    pack(jnp.zeros(4, jnp.int8), layout="octal")


@pytest.mark.parametrize("axis", [0, 1])
def test_product_takes_packed_codes(axis):
  x = jax.random.normal(jax.random.key(1), (6, 10))
  codes = jax.random.randint(jax.random.key(2), (10, 7), -1, 2, jnp.int8)
  latent, scale = codes.astype(jnp.float32), jnp.full((1, 1), 0.3)

  def loss(x, latent, qvalue):
    q = QTensor(qvalue, scale, latent)
    return jnp.sum(jnp.sin(bit_dot(x, q, "bitnet_2b4t")))

  both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  expected = both(x, latent, codes)
  actual = both(x, latent, pack(codes, axis=axis))
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("shape", [(1, 10), (10,), (1, 1, 10), (2, 10)])
@pytest.mark.parametrize("axis", [0, 1])
def test_one_row_is_multiplied_as_several_are(shape, axis):
  x = jax.random.normal(jax.random.key(1), shape)
  codes = jax.random.randint(jax.random.key(2), (10, 7), -1, 2, jnp.int8)
  scale = jnp.full((1, 1), 0.3)

  @jax.jit
  def multiply(x, qvalue):
    return bit_dot(x, QTensor(qvalue, scale), "bitnet_2b4t")

  expected = multiply(x, codes)
  found = multiply(x, pack(codes, axis=axis))
  np.testing.assert_array_equal(found, expected)


def test_largest_sums_of_one_row_are_exact():
  x = QTensor(jnp.full((1, 4096), -128, jnp.int8), jnp.ones((1, 1)))
  for code in (-1, 1):
    codes = jnp.full((4096, 2), code, jnp.int8)
    w = QTensor(pack(codes), jnp.ones((1, 1)))
    y = bit_dot(x, w, "b158")
    np.testing.assert_array_equal(y, [[-128 * 4096 * code] * 2])


@pytest.mark.parametrize(("layout", "axis"), [("quad", -2), ("base3", 1)])
def test_packed_codes_are_dequantized(layout, axis):
  codes = jax.random.randint(jax.random.key(0), (7, 6), -1, 2, jnp.int8)
  q = QTensor(pack(codes, layout, axis), jnp.full((1, 6), 0.5))
  np.testing.assert_array_equal(q.codes, codes)
  np.testing.assert_array_equal(q.dequantize(), codes * 0.5)
