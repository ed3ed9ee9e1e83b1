"""The tables of implementations: each entry, and what chooses among them."""

import os
import traceback
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bitnet_jax
from bitnet_jax import RECIPES, BitDense, QTensor, backend
from bitnet_jax.ops import bit_dot, lowering, pack
from bitnet_jax.ops.lowering import OPERATIONS
from bitnet_jax.ops.xla_conv import Window

PACKAGE = os.path.dirname(bitnet_jax.__file__)
RNG = np.random.default_rng(0)
SAME = Window(strides=(1, 1), padding="SAME")
GROUPS = Window(strides=(1, 1), padding="SAME", groups=2)
INTEGERS = {"precision": None, "dtype": jnp.int32}


def whole(*shape):
  """Floats whose products and sums are exact in any order."""
  return jnp.asarray(RNG.integers(-9, 10, shape), jnp.float32)


def codes(*shape, largest=1):
  return jnp.asarray(RNG.integers(-largest, largest + 1, shape), jnp.int8)


def scaled(array, *scale):
  return QTensor(array, jnp.full(scale, 0.25))


def like(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def norm_options(**options):
  return {"norm": "layer_norm", **options}


X, DX = whole(2, 8, 8, 18), like(2, 8, 8, 18)
G = whole(2, 8, 8, 20)
BY_INPUT = {"like": like(4, 20, 32), "window": None, "precision": None}
BY_WEIGHT = {"like": like(160, 24), "window": None, "precision": None}
OF_CONV = {"window": SAME, "precision": None}
# Operands and options of each operation; an entry takes one of them at least.
CALLS = {
  "dot": [
    ((codes(1, 32), codes(32, 24)), INTEGERS),
    ((codes(4, 20, 32), codes(32, 24)), INTEGERS),
  ],
  "dot_by_input": [
    ((whole(4, 20, 24), scaled(codes(32, 24), 1, 1)), BY_INPUT),
  ],
  "dot_by_weight": [
    (
      (whole(4, 20, 24), scaled(codes(4, 20, 160, largest=99), 4, 20, 1)),
      BY_WEIGHT,
    ),
  ],
  "packed_dot": [
    ((codes(1, 512, largest=99), pack(codes(512, 128))), INTEGERS),
  ],
  "conv": [((X, whole(3, 3, 18, 20)), OF_CONV | {"dtype": None})],
  "conv_by_input": [
    ((G, scaled(codes(3, 3, 18, 20), 1, 1, 1, 1)), OF_CONV | {"like": DX}),
  ],
  "conv_by_weight": [
    (
      (G, scaled(codes(2, 8, 8, 128, largest=99), 2, 1, 1, 1)),
      OF_CONV | {"like": like(3, 3, 128, 20)},
    ),
    ((G, X), OF_CONV | {"like": like(3, 3, 9, 20), "window": GROUPS}),
  ],
  "quantize_rows": [
    ((whole(6, 40),), norm_options(quantizer=RECIPES["b158"].acts)),
  ],
  "norm_gradient": [
    (
      (whole(6, 40), jnp.zeros((6, 1)), jnp.ones((6, 1)), whole(6, 40)),
      norm_options(axes=(-1,)),
    ),
  ],
  "attend_cached": [
    (
      (
        whole(2, 3, 2, 20),
        whole(4, 2, 3, 37, 20),
        whole(4, 2, 3, 37, 20),
        jnp.int32(2),
        jnp.asarray(np.arange(37) < np.array([[9], [37]])),
      ),
      {},
    ),
  ],
}


@pytest.mark.parametrize(
  "name, entry",
  [(o.name, entry) for o in OPERATIONS.values() for entry in o.entries],
)
@pytest.mark.usefixtures("one_device")
def test_entry_computes_what_the_last_of_its_table_does(name, entry, request):
  operation = OPERATIONS[name]
  entry, last = operation.entries[entry], [*operation.entries.values()][-1]
  if entry.is_kernel and entry.name != "tpu":
    request.getfixturevalue("compiled")
  options = {"interpret": True} if entry.name == "tpu" else {}
  with backend.compiling_for("tpu" if entry.name == "tpu" else "cpu"):
    operands, given = next(call for call in CALLS[name] if entry.takes(*call))
  found = jax.jit(lambda *a: entry.run(*a, **given, **options))(*operands)
  expected = jax.jit(lambda *a: last.run(*a, **given))(*operands)
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    if name in ("quantize_rows", "norm_gradient", "attend_cached"):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    else:
      np.testing.assert_array_equal(a, b)


def test_every_operation_has_a_last_entry_for_all_operands():
  assert OPERATIONS.keys() == CALLS.keys()
  for operation in OPERATIONS.values():
    last = [*operation.entries.values()][-1]
    assert not last.is_kernel
    for call in CALLS[operation.name]:
      assert last.takes(*call)


def gradients(x, w):
  return jax.grad(lambda x, w: jnp.sum(bit_dot(x, w, "b158")), (0, 1))(x, w)


@pytest.mark.usefixtures("compiled", "one_device")
def test_a_call_explains_what_it_takes():
  x, w = like(80, 32), like(32, 24)
  assert lowering.explain(gradients, x, w) == [
    ("dot", "flat"),
    ("dot_by_input", "look-up"),
    ("dot_by_weight", "integers"),
  ]
  with lowering.portable():
    assert lowering.explain(gradients, x, w) == [
      ("dot", "flat"),
      ("dot_by_input", "dequantized"),
      ("dot_by_weight", "copied"),
    ]
  with backend.compiling_for("gpu"):
    assert {entry for _, entry in lowering.explain(gradients, x, w)} == {"xla"}


def test_a_forced_entry_is_taken():
  x, w = like(80, 32), like(32, 24)
  with lowering.forced(dot_by_weight="xla"), lowering.forced(dot="xla"):
    taken = dict(lowering.explain(gradients, x, w))
  assert (taken["dot"], taken["dot_by_weight"]) == ("xla", "xla")


@pytest.mark.parametrize(
  "entries, message",
  [
    ({"dots": "xla"}, "operation is 'dots', .* 'dot_by_input'"),
    ({"dot": "native"}, "dot is 'native', .* 'padded row', 'flat', 'xla'"),
  ],
)
def test_an_unknown_entry_is_refused_with_the_choices(entries, message):
  with pytest.raises(ValueError, match=message), lowering.forced(**entries):
    pass


def test_a_forced_entry_that_does_not_take_a_call_is_refused():
  with (
    lowering.forced(dot="padded row"),
    pytest.raises(ValueError, match=r"must run 'padded row'.*int8\[80,32\]"),
  ):
    lowering.explain(gradients, like(80, 32), like(32, 24))


@pytest.mark.parametrize("devices", [1, 8])
def test_gradients_are_traced_for_batches_of_any_size(devices, monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: devices)
  (batch,) = jax.export.symbolic_shape("b")
  x, w = like(batch, 3, 32), like(32, 24)
  # JAX does not promise to keep the layout of a transposed copy.
  check = jax.export.DisabledSafetyCheck.custom_call("LayoutConstraint")
  exported = jax.export.export(
    jax.jit(lambda x, w: gradients(x, w)), disabled_checks=[check]
  )(x, w)
  assert exported.out_avals[0].shape == x.shape


def test_a_layer_is_five_calls_from_its_primitive():
  layer, x = BitDense(8), jnp.ones((2, 16))
  variables = layer.init(jax.random.key(0), x)
  depths = []
  multiply = jax.lax.dot_general

  def count(*args, **kwargs):
    frames = traceback.extract_stack()
    depths.append([f.name for f in frames if f.filename.startswith(PACKAGE)])
    return multiply(*args, **kwargs)

  with mock.patch.object(jax.lax, "dot_general", count):
    layer.apply(variables, x)
  (names,) = depths
  assert names[0] == "__call__"
  assert len(names) <= 5, names
