"""The optional kernels in C++."""

import ctypes
import shlex
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.fft import _pocketfft_umath

from bitnet_jax import RECIPES, BitDense, QTensor
from bitnet_jax.ops import bit_conv, bit_dot, lowering, native, pack
from bitnet_jax.ops.cpu import dot, kernels, library
from tests.jaxprs import kernel_calls as calls

QUICK_RECIPES = ("b158", "int4")


@pytest.fixture
def none(tmp_path, monkeypatch):
  """An empty cache folder."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  library.is_there.cache_clear()
  yield tmp_path
  library.is_there.cache_clear()


def codes_of(rng, shape):
  return rng.integers(-1, 2, shape).astype(np.int8)


# Rows in fours, twos and ones; columns of whole and of partial registers.
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("shape", [(4, 1), (8, 16), (33, 70), (128, 300)])
@pytest.mark.usefixtures("compiled")
def test_products_are_exact(rows, shape):
  rng = np.random.default_rng(rows)
  codes = codes_of(rng, shape)
  x = rng.integers(-128, 128, (rows, shape[0])).astype(np.int8)
  found = jax.jit(kernels.packed_dot)(x, pack(jnp.asarray(codes)).data)
  np.testing.assert_array_equal(found, x.astype(np.int64) @ codes)


@pytest.mark.usefixtures("compiled")
def test_extremes_do_not_overflow():
  x = np.full((2, 4096), -128, np.int8)
  data = pack(jnp.ones((4096, 20), jnp.int8)).data
  found = jax.jit(kernels.packed_dot)(x, data)
  np.testing.assert_array_equal(found, -128 * 4096)


@pytest.mark.usefixtures("compiled")
def test_layers_use_it_for_few_rows():
  rng = np.random.default_rng(0)
  q = QTensor(jnp.asarray(codes_of(rng, (64, 48))), jnp.ones((1, 1)))
  frozen = QTensor(pack(q.codes), q.scale)
  recipe = RECIPES["bitnet_2b4t"]
  most = dot.MOST_PACKED_ROWS
  for shape in ((64,), (2, 3, 64), (most, 64), (most + 1, 64)):
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def multiply(x, w):
      return bit_dot(x, w, recipe)

    few = x.size // 64 <= most
    assert calls(multiply, x, frozen) == few
    np.testing.assert_array_equal(
      jax.jit(multiply)(x, frozen), jax.jit(multiply)(x, q)
    )


@pytest.mark.usefixtures("compiled")
def test_it_runs_under_vmap():
  rng = np.random.default_rng(0)
  codes = codes_of(rng, (3, 8, 5))
  x = rng.integers(-128, 128, (3, 2, 8)).astype(np.int8)
  data = jax.vmap(lambda c: pack(c).data)(jnp.asarray(codes))
  found = jax.jit(jax.vmap(kernels.packed_dot))(x, data)
  np.testing.assert_array_equal(found, x.astype(np.int64) @ codes)


# Rows in fours and ones; terms in threes of threes, in threes, and what is
# left; columns of whole and of partial registers and tiles.
@pytest.mark.parametrize("rows", [0, 1, 4, 7, 65])
@pytest.mark.parametrize(
  "columns, terms", [(1, 1), (16, 2), (20, 9), (1153, 14), (2310, 64)]
)
@pytest.mark.usefixtures("compiled")
def test_products_of_whole_numbers_are_exact(rows, columns, terms):
  rng = np.random.default_rng(rows)
  codes = codes_of(rng, (columns, terms))
  x = rng.integers(-999, 1000, (rows, terms)).astype(np.float32)
  found = jax.jit(kernels.ternary_dot)(x, codes, jnp.float32(0.25))
  np.testing.assert_array_equal(found, x @ codes.T.astype(np.float32) / 4)


@pytest.mark.usefixtures("compiled")
def test_rows_depend_on_no_other_row():
  rng = np.random.default_rng(0)
  codes = codes_of(rng, (40, 70))
  x = rng.normal(size=(75, 70)).astype(np.float32)
  multiply = jax.jit(kernels.ternary_dot)
  together = multiply(x, codes, jnp.float32(0.1))
  expected = 0.1 * x.astype(np.float64) @ codes.T
  np.testing.assert_allclose(together, expected, atol=1e-5)
  for rows in (slice(1), slice(3, 50), slice(70, 75)):
    alone = multiply(x[rows], codes, jnp.float32(0.1))
    np.testing.assert_array_equal(alone, together[rows])
  x[2, 5], x[4, 6], x[6, 7] = np.nan, np.inf, -np.inf
  found = multiply(x, codes, jnp.float32(0.1))
  bad = [2, 4, 6]
  assert not np.isfinite(found[bad, :]).any()
  good = np.delete(np.arange(75), bad)
  np.testing.assert_array_equal(found[good, :], together[good, :])


def weight_shape_and_product(kind):
  if kind == "dot":
    return (32, 24), bit_dot
  geometry = dict(window_strides=(1,), padding="SAME")
  return (3, 32, 24), lambda *args: bit_conv(*args, **geometry)


@pytest.mark.parametrize("kind", ["dot", "conv"])
@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK_RECIPES))
    for name in sorted(RECIPES.keys() - {"float"})
  ],
)
@pytest.mark.usefixtures("compiled")
def test_gradients_take_kernels(name, kind, monkeypatch):
  recipe, rng = RECIPES[name], np.random.default_rng(0)
  shape, product = weight_shape_and_product(kind)
  w = jnp.asarray(rng.normal(size=shape), jnp.float32)
  x = jnp.asarray(rng.normal(size=(2, 35, 32)), jnp.float32)
  g = jnp.asarray(rng.normal(size=(2, 35, 24)), jnp.float32)

  def gradients(x, w, g):
    return jax.vjp(lambda x, w: product(x, w, recipe), x, w)[1](g)

  assert calls(gradients, x, w, g) == 0  # Not where devices share the rows.
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  looked_up = recipe.weights.range == (-1, 1)
  assert calls(gradients, x, w, g, of="ternary") == looked_up
  summed = recipe.acts is not None
  assert calls(gradients, x, w, g, of="transposed") == summed
  with lowering.portable():
    assert calls(gradients, x, w, g) == 0
    expected = jax.jit(gradients)(x, w, g)
  found = jax.jit(lambda *args: gradients(*args))(x, w, g)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def transposed(shape, w, geometry, **options):
  """Returns dx of a convolution, as a function of g, and the shape of g."""
  geometry = {"padding": "VALID", "window_strides": (1,) * (w.ndim - 2)} | (
    geometry
  )
  q = QTensor(
    jnp.asarray(w),
    jnp.full((1,) * w.ndim, 0.25),
    latent=jnp.asarray(w, jnp.float32),
  )

  def product(x):
    return bit_conv(x, q, "b158", **geometry, **options)

  x = jnp.ones(shape)
  return lambda g: jax.vjp(product, x)[1](g)[0], jax.eval_shape(product, x)


@pytest.mark.parametrize(
  "window, geometry",
  [
    ((5,), {"padding": "SAME", "window_strides": (2,)}),
    ((1, 1), {"window_strides": (1, 2)}),
    ((3, 3), {"padding": "SAME"}),
    ((3, 3), {"padding": "SAME", "window_strides": (2, 3)}),
    ((2, 3), {"padding": ((0, 4), (3, 0)), "rhs_dilation": (3, 1)}),
    ((2, 2), {"padding": ((1, 2), (0, 1)), "lhs_dilation": (2, 3)}),
    ((3, 3), {"padding": ((-1, 2), (2, -2)), "lhs_dilation": (3, 1)}),
    ((2, 1, 3), {"padding": "SAME", "window_strides": (1, 1, 2)}),
  ],
)
@pytest.mark.usefixtures("compiled", "one_device")
def test_convolutions_of_whole_numbers_are_transposed_exactly(window, geometry):
  rng = np.random.default_rng(0)
  w = codes_of(rng, (*window, 18, 17))
  dx, y = transposed((3, *(9, 8, 7)[: len(window)], 18), w, geometry)
  g = jnp.asarray(rng.integers(-999, 1000, y.shape), jnp.float32)
  assert calls(dx, g, of="ternary") == 1
  found = jax.jit(lambda g: dx(g))(g)
  with lowering.portable():
    expected = jax.jit(lambda g: dx(g))(g)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("compiled", "one_device")
def test_gradients_of_an_image_depend_on_no_other():
  rng = np.random.default_rng(0)
  w = codes_of(rng, (3, 3, 70, 40))
  g = rng.normal(size=(5, 4, 6, 40)).astype(np.float32)
  together = jax.jit(transposed((5, 6, 8, 70), w, {})[0])(g)
  for images in (slice(1), slice(2, 5)):
    dx, _ = transposed((len(g[images]), 6, 8, 70), w, {})
    np.testing.assert_array_equal(jax.jit(dx)(g[images]), together[images])
  g[1, 0, 0, 0] = np.nan
  found = jax.jit(transposed((5, 6, 8, 70), w, {})[0])(g)
  np.testing.assert_array_equal(found[2:], together[2:])
  assert not np.isfinite(found[1, :3, :3]).any()
  assert np.isfinite(found[1, 3:]).all()


@pytest.mark.usefixtures("compiled", "one_device")
def test_strips_of_a_large_image_are_those_of_it_as_one_of_many():
  rng = np.random.default_rng(0)
  w = codes_of(rng, (5, 3, 18, 17))
  options = {
    "padding": "SAME",
    "window_strides": (1, 2),
    "rhs_dilation": (3, 1),
  }
  g = jnp.asarray(rng.normal(size=(9, 90, 35, 17)), jnp.float32)
  one, _ = transposed((1, 90, 70, 18), w, options)
  many, _ = transposed((9, 90, 70, 18), w, options)
  found = jax.jit(many)(g)
  np.testing.assert_array_equal(jax.jit(one)(g[:1]), found[:1])
  with lowering.portable():
    expected = jax.jit(lambda g: many(g))(g)
  np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 9, 9, 18), (2, 2, 9, 18), (2, 0, 9, 18)])
@pytest.mark.usefixtures("compiled", "one_device")
def test_convolutions_may_be_empty(shape):
  dx, y = transposed(shape, np.ones((3, 3, 18, 17), np.int8), {})
  assert y.size == 0
  found = jax.jit(dx)(jnp.ones(y.shape))
  np.testing.assert_array_equal(found, np.zeros(shape))


@pytest.mark.parametrize("kind", ["dot", "conv"])
@pytest.mark.usefixtures("compiled", "one_device")
def test_gradients_are_differentiated_as_without(kind):
  rng = np.random.default_rng(0)
  shape, product = weight_shape_and_product(kind)
  w = jnp.asarray(rng.normal(size=shape), jnp.float32)
  x = jnp.asarray(rng.normal(size=(3, 2, 40, 32)), jnp.float32)
  head = jnp.asarray(rng.normal(size=(3, 2, 40, 24)), jnp.float32)

  def gradients(x, head):
    def loss(x, w):
      return jnp.sum(product(x, w, "b158") * head)

    return jax.grad(loss, (0, 1))(x, w)

  batched = jax.vmap(gradients)
  assert calls(batched, x, head, of="ternary") == 1
  assert calls(batched, x, head, of="transposed") == 1

  def penalty(x, head):
    return sum(jnp.sum(d**2) for d in gradients(x, head))

  for function in (batched, jax.vmap(jax.value_and_grad(penalty, 1))):
    found = jax.jit(function)(x, head)
    with lowering.portable():
      expected = jax.jit(lambda *args, f=function: f(*args))(x, head)
    for a, b in zip(found, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("compiled", "one_device")
def test_scales_may_be_of_another_dtype():
  q = QTensor(
    jnp.ones((16, 24), jnp.int8),
    jnp.full((1, 1), 0.5, jnp.bfloat16),
    latent=jnp.ones((16, 24)),
  )
  found = jax.grad(lambda x: jnp.sum(bit_dot(x, q, "b158")))(jnp.ones((3, 16)))
  np.testing.assert_array_equal(found, 12)
  # Also those of inputs, which tokens may share.
  inputs = QTensor(
    jnp.ones((4, 16, 16), jnp.int8),
    jnp.full((4, 1, 1), 0.5, jnp.bfloat16),
    latent=jnp.ones((4, 16, 16)),
  )

  def gradient(w):
    return jax.grad(lambda w: jnp.sum(bit_dot(inputs, w, "b158")))(w)

  w = jnp.ones((16, 24))
  assert calls(gradient, w, of="transposed_dot") == 1
  np.testing.assert_array_equal(gradient(w), 32)


@pytest.mark.usefixtures("compiled")
def test_rows_of_a_batch_are_multiplied_together():
  rng = np.random.default_rng(0)
  codes = codes_of(rng, (3, 40, 20))
  x = rng.integers(-99, 100, (3, 2, 7, 20)).astype(np.float32)
  one = jnp.float32(1)
  alike = jax.vmap(jax.vmap(kernels.ternary_dot, (0, None, None)), (0, 0, None))
  found = jax.jit(alike)(x, codes, one)
  expected = np.einsum("abmn,akn->abmk", x, codes)
  np.testing.assert_array_equal(found, expected)
  shared = jax.vmap(kernels.ternary_dot, (0, None, None))
  assert "scan" in str(jax.make_jaxpr(alike)(x, codes, one))
  assert "scan" not in str(jax.make_jaxpr(shared)(x[0], codes[0], one))


@pytest.mark.usefixtures("compiled", "one_device")
def test_what_is_shared_by_hand_is_left_to_xla():
  mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
  spec = jax.sharding.PartitionSpec("data")
  rng = np.random.default_rng(0)
  x, w = rng.normal(size=(64, 16)), rng.normal(size=(1, 16, 24))
  layer = BitDense(24, use_bias=False)

  def gradients(x, w):
    def loss(x, kernel):
      return jnp.sum(layer.apply({"params": {"kernel": kernel}}, x) ** 2)

    dx, dw = jax.grad(loss, (0, 1))(x, w[0])
    return dx, dw[None]

  shared = jax.shard_map(
    gradients, mesh=mesh, in_specs=spec, out_specs=(spec, spec)
  )
  x, w = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
  assert calls(gradients, x, w) == 4  # Rounding, its norm, and both products.
  assert calls(shared, x, w) == 0
  found = jax.jit(shared)(x, w)
  with lowering.portable():
    expected = jax.jit(lambda *args: gradients(*args))(x, w)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compiled", "one_device")
def test_gradients_of_a_stack_of_layers_look_sums_up():
  rng = np.random.default_rng(0)
  w = jnp.asarray(rng.normal(size=(3, 32, 32)), jnp.float32)
  x = jnp.asarray(rng.normal(size=(4, 6, 32)), jnp.float32)

  def loss(x, w):
    def layer(x, w):
      return x + bit_dot(x, w, "b158"), None

    return jnp.sum(jax.lax.scan(layer, x, w)[0] ** 2)

  one_by_one = jax.vmap(jax.grad(loss, (0, 1)), (0, None))
  assert calls(one_by_one, x, w) > 0
  found = jax.jit(one_by_one)(x, w)
  with lowering.portable():
    expected = jax.jit(lambda *args: one_by_one(*args))(x, w)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("compiled", "one_device")
def test_narrow_products_are_left_to_xla():
  narrow = dot.MIN_COLUMNS_LOOKED_UP - 1

  def gradient(x, w):
    return jax.grad(lambda x: jnp.sum(bit_dot(x, w, "b158")))(x)

  for shape, expected in (((narrow, 32), 0), ((narrow + 1, 32), 1)):
    x, w = jnp.ones((4, shape[0])), jnp.ones(shape)
    assert calls(gradient, x, w, of="ternary") == expected


@pytest.mark.parametrize(
  "channels, groups, expected",
  [
    ((18, 16), 1, 1),
    ((8, 17), 1, 1),
    ((18, 15), 1, 0),
    ((16, 16), 1, 0),
    ((7, 32), 1, 0),
    ((36, 36), 2, 0),
  ],
)
@pytest.mark.usefixtures("compiled", "one_device")
def test_narrow_and_grouped_convolutions_are_left_to_xla(
  channels, groups, expected
):
  c_in, c_out = channels
  w = np.ones((3, c_in // groups, c_out), np.int8)
  dx, y = transposed((2, 8, c_in), w, {}, feature_group_count=groups)
  assert calls(dx, jnp.ones(y.shape), of="ternary") == expected


@pytest.mark.usefixtures("compiled")
def test_portable_programs_do_without():
  frozen = QTensor(pack(jnp.ones((8, 4), jnp.int8)), jnp.ones((1, 1)))

  def multiply(x):
    return bit_dot(x, frozen, RECIPES["bitnet_2b4t"])

  with lowering.portable():
    assert calls(multiply, jnp.ones((1, 8))) == 0
  assert calls(multiply, jnp.ones((1, 8))) == 1


@pytest.mark.usefixtures("compiled")
def test_a_process_may_find_a_second_copy(tmp_path, monkeypatch):
  first = library.location()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  second = library.location()
  shutil.copytree(first.parent, second.parent)
  library.is_there.cache_clear()
  assert library.is_there()
  data = pack(jnp.ones((8, 4), jnp.int8)).data
  found = jax.jit(kernels.packed_dot)(jnp.ones((1, 8), jnp.int8), data)
  np.testing.assert_array_equal(found, 8)


def test_nothing_needs_it(none):
  assert not library.is_there()
  frozen = QTensor(pack(jnp.ones((8, 4), jnp.int8)), jnp.ones((1, 1)))
  y = bit_dot(jnp.ones((1, 8)), frozen, RECIPES["bitnet_2b4t"])
  np.testing.assert_allclose(y, 8, rtol=1e-6)


def test_missing_compiler_is_named(none, monkeypatch):
  monkeypatch.setenv("CXX", "no-such-compiler")
  with pytest.raises(native.NativeError, match="'no-such-compiler'; set CXX"):
    native.build()
  assert not list((none / "bitnet_jax" / "native").iterdir())


def test_library_of_something_else_is_left_alone(none):
  path = library.location()
  path.parent.mkdir(parents=True)
  shutil.copy(_pocketfft_umath.__file__, path)
  library.digest_file(path).write_text(library.digest(path))
  assert not hasattr(ctypes.CDLL(str(path)), "bitnet_runs_here")
  assert not library.is_there()


def test_failing_compiler_says_why(none, monkeypatch):
  script = "import sys; sys.exit('error: no such option')"
  monkeypatch.setenv("CXX", shlex.join([sys.executable, "-c", script]))
  with pytest.raises(native.NativeError, match="failed: error: no such option"):
    native.build()


def test_library_of_another_processor_is_left_alone(none):
  path = library.location()
  path.parent.mkdir(parents=True)
  path.write_bytes(b"not a library")
  library.digest_file(path).write_text(library.digest(path))
  assert not library.is_there()
