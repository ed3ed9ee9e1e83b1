"""Attention and feed-forward layers against their definitions."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES
from bitnet_jax.layers.attention import Attention, attend, make_mask, rotate
from bitnet_jax.layers.feed_forward import KINDS, FeedForward
from tests.jaxprs import equations

D, HEADS, KV_HEADS, HEAD = 12, 4, 2, 6


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), "float32")


def make_attention(recipe="float", **changes):
  options = {"num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_dim": HEAD}
  return Attention(**(options | changes), recipe=recipe)


def reference(params, x, memory, mask):
  """Attention in NumPy, head by head."""
  kernels = {n: np.asarray(p["kernel"]) for n, p in params.items()}
  heads = []
  for head in range(HEADS):
    own = slice(head * HEAD, (head + 1) * HEAD)
    shared = head // (HEADS // KV_HEADS)
    kv = slice(shared * HEAD, (shared + 1) * HEAD)
    query = x @ kernels["query"][:, own]
    key, value = (
      memory @ kernels["key"][:, kv],
      memory @ kernels["value"][:, kv],
    )
    scores = query @ key.T / np.sqrt(HEAD)
    weights = np.exp(np.where(mask, scores, -np.inf))
    heads.append(weights / weights.sum(-1, keepdims=True) @ value)
  return np.concatenate(heads, -1) @ kernels["out"]


@pytest.mark.parametrize("masked", [None, "documents", "padding"])
def test_blocks_of_queries_attend_as_all_at_once(masked):
  t = 256
  x = [normal(i, 2, t, heads, 4) for i, heads in enumerate((4, 2, 2))]
  segments = jnp.asarray(np.arange(t) // 100 + 1)[None].repeat(2, 0)
  mask = {
    None: None,
    "documents": make_mask(segments=(segments, segments)),
    "padding": jnp.broadcast_to(jnp.arange(t) < 200, (2, 1, 1, t)),
  }[masked]
  weight = normal(3, 2, t, 4, 4)

  def outcome(attention):
    def total(*x):
      y = attention(*x, mask=mask, is_causal=True)
      return jnp.sum(y * weight), y

    f = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))
    return f(*x), f.lower(*x).compile().cost_analysis()["flops"]

  blocks, work = outcome(attend)
  whole, all_work = outcome(jax.nn.dot_product_attention)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), blocks, whole
  )
  assert work < 0.75 * all_work


@pytest.mark.parametrize("is_causal", (False, True))
def test_attention_in_float16_compiles(is_causal):
  inputs = [normal(seed, 1, 8, 2, 4) for seed in range(3)]
  run = jax.jit(functools.partial(attend, is_causal=is_causal))
  found = run(*(a.astype(jnp.float16) for a in inputs))
  assert found.dtype == jnp.float16
  # Units in the last place of inputs and outputs of order one.
  np.testing.assert_allclose(found, run(*inputs), rtol=0, atol=4e-3)


@pytest.mark.parametrize(
  "is_causal", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_grouped_heads_are_those_of_the_definition(is_causal):
  x = normal(0, 1, 5, D)
  layer = make_attention()
  variables = layer.init(jax.random.key(0), x)
  y, cache = layer.apply(variables, x, is_causal=is_causal)
  mask = np.tril(np.ones((5, 5), bool)) | (not is_causal)
  expected = reference(variables["params"], x[0], x[0], mask)
  assert cache is None
  np.testing.assert_allclose(y[0], expected, atol=1e-5)


def test_memory_is_attended_to():
  x, memory = normal(0, 1, 3, D), normal(1, 1, 5, 7)
  layer = make_attention()
  variables = layer.init(jax.random.key(0), x, memory)
  y, _ = layer.apply(variables, x, memory)
  expected = reference(variables["params"], x[0], memory[0], True)
  np.testing.assert_allclose(y[0], expected, atol=1e-5)


def test_rotation_makes_products_depend_on_distances():
  query, key = normal(0, 1, 1, 1, 8), normal(1, 1, 1, 1, 8)

  def product(m, n):
    rotated = [
      rotate(x, jnp.full((1, 1), place), base=100.0)
      for x, place in ((query, m), (key, n))
    ]
    return float(jnp.sum(rotated[0] * rotated[1]))

  assert product(3, 1) == pytest.approx(product(10, 8), abs=1e-5)
  assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)
  np.testing.assert_array_equal(
    rotate(query, jnp.zeros((1, 1), int), base=100.0), query
  )


def test_masks_are_those_written_out():
  places = jnp.asarray([[-1, 0, 1, 2]])
  segments = jnp.asarray([[1, 1, 2, 0]])
  causal = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
  own = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
  both = np.asarray(causal) * np.asarray(own)
  for expected, masks in (
    (causal, {"positions": (places, places)}),
    (own, {"segments": (segments, segments)}),
    (both, {"positions": (places, places), "segments": (segments, segments)}),
  ):
    np.testing.assert_array_equal(make_mask(**masks)[0, 0], expected)
  assert make_mask() is None


def roundings(layer, x, **kwargs):
  variables = layer.init(jax.random.key(0), x)
  jaxpr = jax.make_jaxpr(lambda v, x: layer.apply(v, x, **kwargs))(variables, x)
  return len(list(equations(jaxpr.jaxpr, "round")))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("recipe", "expected"),
  [
    ("b158", 4 + 2),  # Kernels; the input of all three, and that of ``out``.
    ("trilm", 4),
    ("float", 0),
    ((("query", "b158_median"), (".*", "b158")), 4 + 4),
  ],
)
def test_shared_input_is_quantized_once(recipe, expected):
  x = normal(0, 2, 5, D)
  assert roundings(make_attention(recipe), x) == expected


@pytest.mark.parametrize(("kind", "expected"), [("swiglu", 5), ("gelu", 4)])
def test_gate_and_up_quantize_their_input_once(kind, expected):
  layer = FeedForward(8, kind=kind)
  assert roundings(layer, normal(0, 2, 5, D)) == expected


def make_feed_forward(recipe):
  return FeedForward(8, recipe=recipe)


@pytest.mark.parametrize("make", [make_attention, make_feed_forward])
def test_sharing_the_input_changes_no_bit(make):
  x = normal(0, 2, 5, D)
  # The gradient's rule differs, so nothing is shared; the values are the same.
  other = dataclasses.replace(RECIPES["b158"], ste="clipped")
  shared, apart = make("b158"), make((("query|gate", other), (".*", "b158")))
  variables = shared.init(jax.random.key(0), x)
  y, y_apart = (layer.apply(variables, x) for layer in (shared, apart))
  jax.tree.map(np.testing.assert_array_equal, y, y_apart)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_phase_in_reaches_the_projections(strength):
  x = normal(0, 2, 5, D)
  layer = make_attention("b158")
  variables = layer.init(jax.random.key(0), x)
  phased, _ = layer.apply(variables, x, strength=jnp.float32(strength))
  full, _ = layer.apply(variables, x)
  close = np.allclose(phased, full, atol=1e-5)
  assert close == (strength == 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_feed_forward_is_its_definition(kind):
  x = normal(0, 4, D)
  layer = FeedForward(8, kind=kind, recipe="float")
  variables = layer.init(jax.random.key(0), x)
  y = layer.apply(variables, x)
  kernels = {n: p["kernel"] for n, p in variables["params"].items()}
  activation = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "relu2": lambda x: jnp.maximum(x, 0) ** 2,
  }
  name = {"reglu": "relu", "geglu": "gelu", "swiglu": "silu"}.get(kind, kind)
  first = x @ kernels["gate" if "gate" in kernels else "up"]
  hidden = activation[name.removesuffix("_gated")](first)
  if "gate" in kernels:
    hidden = hidden * (x @ kernels["up"])
  np.testing.assert_allclose(y, hidden @ kernels["down"], atol=1e-5)
  assert ("gate" in kernels) == kind.endswith(("glu", "_gated"))


def test_unknown_kind_lists_the_kinds():
  with pytest.raises(ValueError, match=r"kind is 'swigle', .*mean 'swiglu'"):
    FeedForward(8, kind="swigle").init(jax.random.key(0), normal(0, 1, 4))


def test_layers_keep_their_dtype_and_leave_sharding_to_models():
  x = normal(0, 1, 3, D)
  layer = make_attention("b158", dtype=jnp.bfloat16)
  variables = layer.init(jax.random.key(0), x)
  assert layer.apply(variables, x)[0].dtype == jnp.bfloat16
  jax.tree.map(lambda p: p.shape, variables)
  assert all(isinstance(p, jax.Array) for p in jax.tree.leaves(variables))
  boxed = make_attention(partition=nn.with_logical_partitioning)
  params = boxed.init(jax.random.key(0), x)["params"]
  assert params["query"]["kernel"].names == ("embed", "heads")
