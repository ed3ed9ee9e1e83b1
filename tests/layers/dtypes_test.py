"""Inputs of every dtype: what the twins take, and what is refused by name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx

from bitnet_jax import (
  RECIPES,
  BitConv,
  BitDense,
  BitDenseGeneral,
  Quantizer,
  Recipe,
)
from bitnet_jax import nnx as bit_nnx
from bitnet_jax.layers import graph, message_passing
from bitnet_jax.models.gnn import Gnn, GnnConfig
from bitnet_jax.ops import bit_conv, bit_dot, normalize, quantize_input

FEW = ("bool", "int64", "float64", "complex64", "float8_e4m3fn")
DTYPES = (
  *FEW,
  *("int8", "uint8", "int16", "uint32", "int4", "float8_e5m2"),
  *("float16", "bfloat16", "float32"),
)
LINEN = {
  "dense": (nn.Dense(3), lambda recipe: BitDense(3, recipe=recipe)),
  "general": (
    nn.DenseGeneral((3,)),
    lambda recipe: BitDenseGeneral((3,), recipe=recipe),
  ),
  "conv": (nn.Conv(3, (2,)), lambda recipe: BitConv(3, (2,), recipe=recipe)),
}
NNX = {
  "dense": (nnx.Linear, bit_nnx.BitLinear, (4, 3)),
  "general": (nnx.LinearGeneral, bit_nnx.BitLinearGeneral, (4, 3)),
  "conv": (nnx.Conv, bit_nnx.BitConv, (4, 3, (2,))),
}
SENDERS, RECEIVERS = jnp.array([0, 1, 2, 3]), jnp.array([1, 2, 3, 4])


@pytest.fixture
def as_users_call(monkeypatch):
  """Annotations are not checked, and NumPy arrays get through to the code."""
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def numbers(dtype, shape=(2, 5, 4)):
  """A NumPy array with ones and zeros."""
  x = np.random.default_rng(0).integers(0, 2, shape)
  return x.astype(jnp.dtype(dtype))


def linen(layer, x):
  return jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), x)[0])


def of_nnx(cls, sizes, x, **options):
  return jax.eval_shape(lambda: cls(*sizes, rngs=nnx.Rngs(0), **options)(x))


def dtype_or_error(call, *args, **kwargs):
  """The dtype of a result; the kind of error without one."""
  try:
    return call(*args, **kwargs).dtype
  except Exception as error:
    return type(error)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
  "kind, wide, dtypes",
  [
    ("dense", False, FEW),
    ("conv", False, FEW),
    ("conv", True, ["float64"]),
    *(
      pytest.param(kind, wide, DTYPES, marks=pytest.mark.slow)
      for kind in LINEN
      for wide in (False, True)
    ),
  ],
)
def test_layers_take_the_dtypes_of_their_twins(kind, wide, dtypes):
  twin, ours = LINEN[kind]
  nnx_twin, nnx_ours, sizes = NNX[kind]
  recipes = ["float", "b158_median", "trilm", "int8"]
  with jax.enable_x64(wide):
    for dtype in dtypes:
      x = numbers(dtype)
      expected = dtype_or_error(linen, twin, x)
      assert dtype_or_error(of_nnx, nnx_twin, sizes, x) == expected
      for recipe in recipes if len(dtypes) > len(FEW) else recipes[:3]:
        is_refused = dtype == "complex64" and recipe != "float"
        right = TypeError if is_refused else expected
        found = dtype_or_error(linen, ours(recipe), x)
        assert found == right, (dtype, recipe)
        found = dtype_or_error(of_nnx, nnx_ours, sizes, x, recipe=recipe)
        assert found == right, (dtype, recipe)


W = jnp.ones((4, 3))
COMPLEX = numbers("complex64", (2, 4))
GEOMETRY = {"window_strides": (1,), "padding": "SAME"}


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
  "name, call",
  [
    ("x", lambda: bit_dot(COMPLEX, W, "b158")),
    ("x", lambda: bit_dot(COMPLEX, W, "trilm")),
    ("x", lambda: bit_dot(COMPLEX, W, "b158", strength=0.5)),
    ("w", lambda: bit_dot(W.T, W + 1j, "b158")),
    ("w", lambda: bit_dot(W.T, W + 1j, Recipe(None))),
    ("w", lambda: BitDense(3, param_dtype=jnp.complex64).init(
      jax.random.key(0), W.T)),
    ("bias", lambda: bit_dot(W.T, W, "b158", bias=jnp.ones(3) + 1j)),
    ("x", lambda: bit_conv(COMPLEX[None], W[None], "int8", **GEOMETRY)),
    ("x", lambda: normalize(COMPLEX, "rms_norm")),
    ("x", lambda: quantize_input(COMPLEX, "bitnet_2b4t")),
    ("x", lambda: BitDense(3).init(jax.random.key(0), COMPLEX, strength=0.5)),
    ("x", lambda: RECIPES["int8"].acts.quantize(COMPLEX)),
    ("x", lambda: RECIPES["int8"].acts.in_range(COMPLEX)),
    ("x", lambda: Quantizer("absmedian", (-1, 1)).measured(COMPLEX)),
    ("scores", lambda: message_passing.segment_softmax(
      COMPLEX, SENDERS[:2], num_segments=4)),
    ("nodes", lambda: graph.GatConv(3, recipe="float").init(
      jax.random.key(0), COMPLEX, SENDERS, RECEIVERS)),
  ],
)  # fmt: skip
def test_complex_numbers_are_refused_by_name(name, call):
  with pytest.raises(TypeError, match=f"{name} is complex64.*real"):
    call()


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
  "measure, dtypes",
  [
    ("absmean", ["float64"]),
    ("absmedian", ["float64", "float8_e5m2"]),
    ("absmax", ["float64"]),
    *(
      pytest.param(measure, DTYPES, marks=pytest.mark.slow)
      for measure in ("absmean", "absmedian", "absmax")
    ),
  ],
)
def test_quantizers_cast_any_real_dtype_to_float32(measure, dtypes):
  quantizer = Quantizer(measure, (-1, 1))
  values = np.array([[0.0, 1.0, 3.0], [2.0, 1.0, 1.0]])
  expected = quantizer.quantize(jnp.asarray(values, jnp.float32))
  with jax.enable_x64(True):
    for dtype in dtypes:
      if dtype not in ("bool", "complex64"):
        found = quantizer.quantize(jnp.asarray(values.astype(jnp.dtype(dtype))))
        assert found.scale.dtype == jnp.float32
        np.testing.assert_array_equal(found.scale, expected.scale)
        np.testing.assert_array_equal(found.qvalue, expected.qvalue)


@pytest.mark.slow
@pytest.mark.usefixtures("as_users_call", "strict_dtypes")
@pytest.mark.parametrize("function", ["aggregate", "propagate", "mean"])
def test_messages_are_summed_without_a_cast_to_integers(function):
  weights = jnp.array([0.5, 0.25, 0.5, 0.25])

  def run(x):
    if function == "aggregate":
      return message_passing.aggregate(x, SENDERS, RECEIVERS, weights)
    if function == "propagate":
      return message_passing.propagate(x, SENDERS, RECEIVERS, steps=2)
    return message_passing.segment_mean(
      x, jnp.array([0, 0, 1, 1, 1]), num_segments=2
    )

  x = numbers("float32", (5, 4))
  expected = np.asarray(run(jnp.asarray(x)))
  assert (expected % 1).any()
  for dtype in ("bool", "int8", "uint8", "int32", "int64", "float64"):
    found = run(numbers(dtype, (5, 4)))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)
  found = run(jnp.asarray(numbers("complex64", (5, 4)) * (1 + 2j)))
  np.testing.assert_allclose(found, expected * (1 + 2j), rtol=1e-6)
  with jax.enable_x64(True):
    found = run(jnp.asarray(numbers("float64", (5, 4))))
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
  "kind, pooling",
  [
    ("sgc", "mean"),
    pytest.param("sgc", "none", marks=pytest.mark.slow),
    pytest.param("gcn", "none", marks=pytest.mark.slow),
  ],
)
def test_graph_networks_take_integer_features_as_floats(kind, pooling):
  cfg = GnnConfig(
    **dict(kind=kind, width=4, depth=1, heads=1, steps=2, dropout=0.5),
    **dict(pooling=pooling, init="lecun_normal", num_classes=3),
    **dict(dtype="float32", param_dtype="float32"),
  )
  model = Gnn(cfg, "float")
  x = jnp.asarray(np.random.default_rng(0).integers(0, 9, (1, 5, 4)))
  n_node = None if pooling == "none" else jnp.array([[3, 2]])
  edges = (SENDERS[None], RECEIVERS[None], n_node)
  rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
  variables = model.init(rngs, x, *edges)
  for deterministic in (True, False):
    found, expected = (
      model.apply(
        variables, nodes, *edges, rngs=rngs, deterministic=deterministic
      )
      for nodes in (x, x.astype(jnp.float32))
    )
    np.testing.assert_array_equal(found, expected)
