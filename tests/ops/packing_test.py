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

CODES = hnp.arrays(
  np.int8,
  hnp.array_shapes(min_dims=1, max_dims=3, max_side=9),
  elements=st.integers(-1, 1),
)


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(codes=CODES, axis=st.integers(-3, 2))
def test_codes_come_back(codes, axis):
  axis = axis % codes.ndim
  packed = pack(jnp.asarray(codes), axis=axis)
  assert packed.shape == codes.shape
  assert packed.ndim == codes.ndim
  assert packed.data.dtype == jnp.uint8
  assert packed.data.shape[axis] == -(-codes.shape[axis] // 4)
  np.testing.assert_array_equal(unpack(packed), codes)


def test_four_neighbours_share_a_byte():
  packed = pack(jnp.array([1, 0, -1, 1, -1], jnp.int8))
  assert packed.data.tolist() == [0b10_00_01_10, 0b01_01_01_00]


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
