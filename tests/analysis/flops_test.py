"""Counted products, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from bitnet_jax import BitDense
from bitnet_jax.analysis import chips, flops

X, W = jnp.zeros((8, 16)), jnp.zeros((16, 32))


def test_product_is_two_operations_a_term():
  assert flops.count(jnp.matmul, X, W) == {"float32": 2 * 8 * 16 * 32}


def test_batched_product_counts_its_batch_once():
  a, b = jnp.zeros((3, 8, 16)), jnp.zeros((3, 16, 4))
  assert flops.count(jnp.matmul, a, b) == {"float32": 2 * 3 * 8 * 16 * 4}


def test_loops_count_as_often_as_they_run():
  def loop(x, w):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w @ w.T), None), x, length=5)

  assert flops.count(jax.jit(loop), X, W) == {"float32": 5 * 4 * 8 * 16 * 32}


def test_longest_branch_counts():
  def branch(x, w):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w.T @ w)

  assert flops.count(branch, X, W) == {"float32": 3 * 2 * 8 * 16 * 32}


def test_gradient_costs_two_more_products():
  found = flops.count(jax.grad(lambda w: jnp.sum((X @ w) ** 2)), W)
  assert found == {"float32": 2 * 2 * 8 * 16 * 32}  # None for the input here.


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_counts_its_window(groups):
  x, w = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 4 // groups, 6))

  def convolve(x, w):
    return jax.lax.conv_general_dilated(
      x,
      w,
      (1, 1),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=groups,
    )

  expected = 2 * (2 * 8 * 8 * 6) * 9 * 4 // groups
  assert flops.count(convolve, x, w) == {"float32": expected}


def test_ternary_layer_multiplies_int8():
  layer = BitDense(32)
  params = layer.init(jax.random.key(0), X)
  assert flops.count(layer.apply, params, X) == {"int8": 2 * 8 * 16 * 32}


def test_utilization_is_that_worked_by_hand():
  chip = chips.find("TPU v5 lite")
  x, w = (
    jnp.zeros((512, 1024), jnp.bfloat16),
    jnp.zeros((1024, 1024), jnp.bfloat16),
  )

  def chain(x, w):
    for _ in range(10):
      x = x @ w
    return x

  counted = flops.count(chain, x, w)
  by_hand = 10 * 2 * 512 * 1024 * 1024 / 1e-3 / (4 * 197e12)
  found = chips.utilization(counted, 1e-3, 4, chip)
  assert abs(found - by_hand) < 0.05 * by_hand
  # The same in int8 is held against twice the peak.
  found = chips.utilization({"int8": counted["bfloat16"]}, 1e-3, 4, chip)
  assert found == pytest.approx(by_hand / 2)


def test_unknown_chip_has_no_peak():
  assert chips.find("cpu") is None
  assert chips.find("NVIDIA H200").memory == 141 * 1024**3
