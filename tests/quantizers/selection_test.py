"""Tests of exact order statistics, against sorting in NumPy."""

import functools
import itertools
import re

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bitnet_jax.quantizers import Quantizer, selection
from bitnet_jax.quantizers.measures import absmedian

# (number of bits, first pattern above the finite magnitudes)
FORMATS = {"float32": (32, 0x7F800000), "bfloat16": (16, 0x7F80),
           "float16": (16, 0x7C00)}  # fmt: skip
# Few shapes, since each compiles; odd, even and single counts.
GROUPS = (
  ((1,), (0,)),
  ((7,), (0,)),
  ((2, 3), (0, 1)),
  ((5, 4), (0,)),
  ((5, 4), (1,)),
  ((2, 3, 3), (0, 2)),
)


def lower_median(x, axes):
  """Sorts in float64, where every value is exact and nothing is flushed."""
  x = np.abs(np.asarray(x).astype(np.float64))
  kept = [i for i in range(x.ndim) if i not in axes]
  flat = np.transpose(x, (*kept, *axes))
  flat = flat.reshape(*(x.shape[i] for i in kept), -1)
  middle = np.sort(flat, -1)[..., (flat.shape[-1] - 1) // 2]
  return np.expand_dims(middle, axes)


def from_bits(dtype, patterns, shape):
  width = FORMATS[dtype][0]
  patterns = np.array(patterns, f"uint{width}")
  return patterns.view(jnp.dtype(dtype)).reshape(shape)


def finite_patterns(dtype):
  """Bit patterns of finite floats: often zeros, ties, subnormals."""
  width, infinity = FORMATS[dtype]
  anything = st.integers(0, infinity - 1)
  near_zero = st.integers(0, 3)  # Both zeros and the least subnormals.
  magnitudes = st.one_of(anything, near_zero)
  sign = st.sampled_from([0, 1 << (width - 1)])
  return st.builds(lambda m, s: m | s, magnitudes, sign)


@functools.partial(jax.jit, static_argnums=1)
def jitted_absmedian(x, axes):
  return absmedian(x, axes)


@pytest.mark.parametrize(
  "dtype",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name != "float32"))
    for name in FORMATS
  ],
)
@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(data=st.data())
def test_absmedian_is_the_lower_median_exactly(dtype, data):
  shape, axes = data.draw(st.sampled_from(GROUPS))
  n = int(np.prod(shape))
  pool = data.draw(st.lists(finite_patterns(dtype), min_size=1, max_size=n))
  picks = st.lists(st.sampled_from(pool), min_size=n, max_size=n)
  x = from_bits(dtype, data.draw(picks), shape)
  m = jitted_absmedian(x, axes)
  np.testing.assert_array_equal(
    np.asarray(m, np.float64), lower_median(x, axes)
  )


def count_wrong_medians():
  """Medians of large arrays of random bits that differ from sorting."""
  rng = np.random.default_rng(0)
  wrong = 0
  for dtype, (shape, axes) in itertools.product(
    FORMATS, [((300, 41), (0, 1)), ((300, 41), (0,)), ((64, 128), (1,))]
  ):
    infinity = FORMATS[dtype][1]
    for low, high in ((0, infinity), (0, 1000), (0, 2), (5, 6)):
      x = from_bits(dtype, rng.integers(low, high, shape), shape)
      x = np.where(rng.random(shape) < 0.5, x, -x)
      m = np.asarray(jitted_absmedian(x, axes), np.float64)
      wrong += int(np.sum(m != lower_median(x, axes)))
  return wrong


@pytest.mark.slow
def test_absmedian_is_exact_with_optimizations_on(optimized):
  assert optimized(count_wrong_medians) == 0


@pytest.mark.parametrize("k", range(5))
def test_kth_smallest_is_element_k_of_the_sorted(k):
  x = jnp.array([-3.0, 1.0, -2.0, 2.0, 0.0])
  found = selection.kth_smallest_magnitude(x, k, (0,))
  assert found == sorted(abs(v) for v in x.tolist())[k]
  assert found.dtype == x.dtype


def test_patterns_of_float64_are_refused_by_name():
  with jax.enable_x64(True):
    with pytest.raises(TypeError, match="float64"):
      selection.magnitude_bits(jnp.zeros(3, jnp.float64))


@pytest.mark.parametrize("bad", (np.nan, -np.nan, np.inf, -np.inf))
def test_non_finite_values_are_found_in_their_group(bad):
  x = jnp.array([[1.0, 2.0, 0.0], [bad, 3.0, 0.0]])
  for k in range(3):
    found = selection.kth_smallest_magnitude(x, k, (1,))
    np.testing.assert_array_equal(found, [[float(k)], [np.nan]])


def sharded_collectives():
  """Quantizes a weight that 4 x 2 devices hold; says what they exchange."""
  axes = (jax.sharding.AxisType.Auto,) * 2
  mesh = jax.make_mesh((4, 2), ("rows", "columns"), axis_types=axes)
  sharding = NamedSharding(mesh, P("rows", "columns"))
  w = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
  found = {}
  for measure in ("absmean", "absmedian", "absmax"):
    quantize = jax.jit(
      Quantizer(measure, (-1, 1)).quantize, in_shardings=sharding
    )
    hlo = quantize.lower(w).compile().as_text()
    sharded, alone = quantize(jax.device_put(w, sharding)), jax.jit(
      Quantizer(measure, (-1, 1)).quantize
    )(w)  # fmt: skip
    found[measure] = {
      "gathers": len(re.findall(r"all-gather|all-to-all|permute", hlo)),
      "reduced": [
        line.split(" all-reduce(")[0].split("=")[1]
        for line in hlo.splitlines()
        if " all-reduce(" in line
      ],
      "flips": int(np.sum(sharded.qvalue != alone.qvalue)),
    }
  return found


@pytest.fixture(scope="module")
def collectives(optimized):
  return optimized(sharded_collectives)


@pytest.mark.slow
@pytest.mark.parametrize("measure", ("absmean", "absmedian", "absmax"))
def test_sharded_weight_is_quantized_by_scalar_all_reduces(
  collectives, measure
):
  found = collectives[measure]
  assert found["gathers"] == 0
  assert found["reduced"]
  for shapes in found["reduced"]:
    # s32[], s32[1,1], or a tuple of such.
    dims = ",".join(re.findall(r"\[([\d,]*)\]", shapes))
    assert set(dims) <= set("1,"), shapes


@pytest.mark.slow
def test_median_of_sharded_weight_gives_the_codes_of_one_device(collectives):
  assert collectives["absmedian"]["flips"] == 0


def test_kernels_of_one_shape_are_traced_once(monkeypatch):
  # Seven passes each, in every layer, took half of the time to trace a model.
  made = []

  class Counted(selection._Patterns):
    def __init__(self, *arguments):
      made.append(arguments)
      super().__init__(*arguments)

  monkeypatch.setattr(selection, "_Patterns", Counted)
  kernels = [jnp.full((3, 17), float(i)) for i in range(4)]

  def medians(kernels):
    return [selection.kth_smallest_magnitude(w, 2, (0, 1)) for w in kernels]

  assert [m.item() for m in jax.jit(medians)(kernels)] == [0, 1, 2, 3]
  assert len(made) == 1
