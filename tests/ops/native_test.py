"""The optional kernel in C++."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, QTensor
from bitnet_jax.ops import bit_dot, native, pack, packed_dot
from tests.jaxprs import equations

COMPILER = shutil.which("g++")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
  """Compiles it; where it cannot run, its tests have nothing to say."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    native.is_there.cache_clear()
    try:
      native.build()
    except native.NativeError as error:
      if COMPILER and "lacks" not in str(error):
        raise
      pytest.skip(str(error))
    assert native.is_there()
    yield
  native.is_there.cache_clear()


@pytest.fixture
def none(tmp_path, monkeypatch):
  """An empty cache folder."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  native.is_there.cache_clear()
  yield tmp_path
  native.is_there.cache_clear()


def codes_of(rng, shape):
  return rng.integers(-1, 2, shape).astype(np.int8)


def calls(function, *args):
  return len(list(equations(jax.make_jaxpr(function)(*args).jaxpr, "ffi_call")))


# Rows in fours, twos and ones; columns of whole and of partial registers.
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("shape", [(4, 1), (8, 16), (33, 70), (128, 300)])
@pytest.mark.usefixtures("kernel")
def test_products_are_exact(rows, shape):
  rng = np.random.default_rng(rows)
  codes = codes_of(rng, shape)
  x = rng.integers(-128, 128, (rows, shape[0])).astype(np.int8)
  found = jax.jit(native.packed_dot)(x, pack(jnp.asarray(codes)).data)
  np.testing.assert_array_equal(found, x.astype(np.int64) @ codes)


@pytest.mark.usefixtures("kernel")
def test_extremes_do_not_overflow():
  x = np.full((2, 4096), -128, np.int8)
  data = pack(jnp.ones((4096, 20), jnp.int8)).data
  found = jax.jit(native.packed_dot)(x, data)
  np.testing.assert_array_equal(found, -128 * 4096)


@pytest.mark.usefixtures("kernel")
def test_layers_use_it_for_few_rows():
  rng = np.random.default_rng(0)
  q = QTensor(jnp.asarray(codes_of(rng, (64, 48))), jnp.ones((1, 1)))
  frozen = QTensor(pack(q.codes), q.scale)
  recipe = RECIPES["bitnet_2b4t"]
  most = packed_dot.MOST_ROWS_OF_KERNEL
  for shape in ((64,), (2, 3, 64), (most, 64), (most + 1, 64)):
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def multiply(x, w):
      return bit_dot(x, w, recipe)

    few = x.size // 64 <= most
    assert calls(multiply, x, frozen) == few
    np.testing.assert_array_equal(
      jax.jit(multiply)(x, frozen), jax.jit(multiply)(x, q)
    )


@pytest.mark.usefixtures("kernel")
def test_it_runs_under_vmap():
  rng = np.random.default_rng(0)
  codes = codes_of(rng, (3, 8, 5))
  x = rng.integers(-128, 128, (3, 2, 8)).astype(np.int8)
  data = jax.vmap(lambda c: pack(c).data)(jnp.asarray(codes))
  found = jax.jit(jax.vmap(native.packed_dot))(x, data)
  np.testing.assert_array_equal(found, x.astype(np.int64) @ codes)


@pytest.mark.usefixtures("kernel")
def test_portable_programs_do_without():
  frozen = QTensor(pack(jnp.ones((8, 4), jnp.int8)), jnp.ones((1, 1)))

  def multiply(x):
    return bit_dot(x, frozen, RECIPES["bitnet_2b4t"])

  with native.portable():
    assert calls(multiply, jnp.ones((1, 8))) == 0
  assert calls(lambda x: multiply(x), jnp.ones((1, 8))) == 1


def test_nothing_needs_it(none):
  assert not native.is_there()
  frozen = QTensor(pack(jnp.ones((8, 4), jnp.int8)), jnp.ones((1, 1)))
  y = bit_dot(jnp.ones((1, 8)), frozen, RECIPES["bitnet_2b4t"])
  np.testing.assert_allclose(y, 8, rtol=1e-6)


def test_missing_compiler_is_named(none, monkeypatch):
  monkeypatch.setenv("CXX", "no-such-compiler")
  with pytest.raises(native.NativeError, match="'no-such-compiler'; set CXX"):
    native.build()
  assert not list((none / "bitnet_jax" / "native").iterdir())


def test_library_of_another_processor_is_left_alone(none):
  path = native.library()
  path.parent.mkdir(parents=True)
  path.write_bytes(b"not a library")
  assert not native.is_there()
