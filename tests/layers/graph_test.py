"""Graph convolutions beside dense matrices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, BitDense
from bitnet_jax.layers import bit_layers, graph
from bitnet_jax.layers import message_passing as mp
from tests.graphs import adjacency, normalized, random_graph
from tests.jaxprs import equations

N, D_IN, D_OUT = 8, 5, 6
SENDERS, RECEIVERS = map(jnp.asarray, random_graph(N, 11))
A = adjacency(SENDERS, RECEIVERS, N)
# Sums of a handful of numbers, in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CONVOLUTIONS = {
  "gcn": graph.GcnConv,
  "sage": graph.SageConv,
  "gat": graph.GatConv,
}


def make_nodes(seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(size=(N, D_IN)), jnp.float32)


def init(conv, x, seed=0):
  return jax.jit(conv.init)(jax.random.key(seed), x, SENDERS, RECEIVERS)


def run(conv, x, seed=0):
  """Returns the output and the parameters as float64, biases not zero."""
  params = init(conv, x, seed=seed)["params"]
  params["bias"] = np.linspace(-1, 1, params["bias"].size, dtype=np.float32)
  y = jax.jit(conv.apply)({"params": params}, x, SENDERS, RECEIVERS)
  return y, jax.tree.map(lambda p: np.asarray(p, np.float64), params)


def softmax(scores):
  exps = np.exp(scores - scores.max(axis=-1, keepdims=True))
  return exps / exps.sum(axis=-1, keepdims=True)


def test_gcn_is_its_matrix_product():
  x = make_nodes()
  y, params = run(graph.GcnConv(D_OUT, recipe="float"), x)
  expected = normalized(A) @ np.asarray(x) @ params["dense"]["kernel"]
  expected += params["bias"]
  np.testing.assert_allclose(y, expected, **CLOSE)


def test_sage_adds_a_node_and_the_mean_of_its_neighbours():
  x = np.asarray(make_nodes(), np.float64)
  y, params = run(graph.SageConv(D_OUT, recipe="float"), make_nodes())
  degrees = A.sum(axis=1, keepdims=True)
  mean = A @ x / np.maximum(degrees, 1)
  assert degrees.min() == 0  # A node without neighbours is among them.
  expected = x @ params["self"]["kernel"] + params["bias"]
  expected += mean @ params["neighbors"]["kernel"]
  np.testing.assert_allclose(y, expected, **CLOSE)


@pytest.mark.parametrize("merge", ["concatenate", "mean"])
def test_gat_attends_to_neighbours_and_the_node_itself(merge):
  heads = 3
  conv = graph.GatConv(D_OUT, heads=heads, merge=merge, recipe="float")
  y, params = run(conv, make_nodes())
  h = np.asarray(make_nodes()) @ params["dense"]["kernel"]
  h = h.reshape(N, heads, D_OUT)
  expected = []
  for head in range(heads):
    sent = h[:, head] @ params["sender"][head]
    received = h[:, head] @ params["receiver"][head]
    scores = received[:, None] + sent[None, :]
    scores = np.where(scores > 0, scores, 0.2 * scores)
    scores = np.where(A + np.eye(N) > 0, scores, -np.inf)
    expected.append(softmax(scores) @ h[:, head])
  join = np.concatenate if merge == "concatenate" else np.mean
  axis = {"axis": 1} if merge == "concatenate" else {"axis": 0}
  np.testing.assert_allclose(
    y, join(expected, **axis) + params["bias"], **CLOSE
  )


def test_gcn_aggregates_what_the_quantized_layer_gives():
  x = make_nodes()
  conv = graph.GcnConv(D_OUT, recipe="b158", use_bias=False)
  y, variables = conv.init_with_output(jax.random.key(0), x, SENDERS, RECEIVERS)
  dense = BitDense(D_OUT, use_bias=False, recipe="b158")

  @jax.jit
  def expected(params):
    sent = dense.apply({"params": params}, x)
    return mp.propagate(sent, SENDERS, RECEIVERS, steps=1)

  np.testing.assert_allclose(y, expected(variables["params"]["dense"]), **CLOSE)


def test_sage_quantizes_its_input_once():
  x = make_nodes()
  conv = graph.SageConv(D_OUT, recipe="b158")
  y, variables = conv.init_with_output(jax.random.key(0), x, SENDERS, RECEIVERS)
  jaxpr = jax.make_jaxpr(conv.apply)(variables, x, SENDERS, RECEIVERS)
  rounded = [
    eqn.invars[0].aval.shape for eqn in equations(jaxpr.jaxpr, "round")
  ]
  assert sorted(rounded) == [(D_IN, D_OUT), (D_IN, D_OUT), (N, D_IN)]
  # The same, each layer by itself.
  apart = graph.SageConv(
    D_OUT, recipe=(("self", "b158"), ("neighbors", RECIPES["bitlinear"]))
  )
  assert {
    layer.recipe for layer in bit_layers(apart, x, SENDERS, RECEIVERS)
  } == {
    RECIPES["b158"],
    RECIPES["bitlinear"],
  }
  params = variables["params"]
  dense = jax.jit(BitDense(D_OUT, use_bias=False, recipe="b158").apply)
  own, sent = (
    dense({"params": params[name]}, x) for name in ("self", "neighbors")
  )
  mean = mp.segment_mean(mp.gather(sent, SENDERS), RECEIVERS, num_segments=N)
  np.testing.assert_allclose(y, own + mean, **CLOSE)


@pytest.mark.parametrize(
  "recipe", ["b158", pytest.param("float", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_gradient_reaches_every_parameter(name, recipe):
  conv = CONVOLUTIONS[name](D_OUT, recipe=recipe)
  x = make_nodes()
  params = init(conv, x)["params"]

  def loss(params):
    y = conv.apply({"params": params}, x, SENDERS, RECEIVERS)
    return jnp.sum(jnp.sin(y))

  grads = jax.jit(jax.grad(loss))(params)
  for path, g in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(g).all(), path
    assert np.abs(g).max() > 0, path


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_graph_without_edges_is_taken(name):
  none = jnp.zeros(0, jnp.int32)
  conv = CONVOLUTIONS[name](D_OUT, recipe="float")
  y, variables = jax.jit(conv.init_with_output)(
    jax.random.key(0), make_nodes(), none, none
  )
  kernel = variables["params"]["self" if name == "sage" else "dense"]["kernel"]
  np.testing.assert_allclose(y, make_nodes() @ kernel, **CLOSE)


def test_attention_drops_out_only_in_training():
  conv = graph.GatConv(D_OUT, dropout=0.5, recipe="float")
  x = make_nodes()
  variables = init(conv, x)

  @functools.partial(jax.jit, static_argnames="deterministic")
  def call(seed, *, deterministic):
    rngs = {"dropout": jax.random.key(seed)}
    return conv.apply(
      variables,
      x,
      SENDERS,
      RECEIVERS,
      deterministic=deterministic,
      rngs=rngs,
    )

  np.testing.assert_array_equal(
    call(0, deterministic=True), call(1, deterministic=True)
  )
  assert np.any(call(0, deterministic=False) != call(1, deterministic=False))


def test_unknown_merge_is_named():
  conv = graph.GatConv(D_OUT, merge="sum")
  with pytest.raises(ValueError, match=r"merge is 'sum', .*'concatenate'"):
    conv.init(jax.random.key(0), make_nodes(), SENDERS, RECEIVERS)
