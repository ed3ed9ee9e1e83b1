"""Graph networks: parameters, symmetry, padding, reach, sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.layers import message_passing
from bitnet_jax.models import registry
from bitnet_jax.models.gnn import KINDS, Gnn, GnnConfig
from tests.graphs import random_graph
from tests.models.conftest import EVERY_RECIPE

SIZES = {
  "kind": "gcn",
  "width": 8,
  "depth": 1,
  "heads": 2,
  "steps": 2,
  "dropout": 0.0,
  "pooling": "none",
  "init": "glorot_uniform",
  "num_classes": 3,
  "dtype": "float32",
  "param_dtype": "float32",
}
N, D = 9, 6
# Sums of a handful of numbers, in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def slow(*values):
  return pytest.param(*values, marks=pytest.mark.slow)


# Each is a program of its own to compile.
EVERY_KIND = [
  ("float", "sgc"),
  ("b158", "gcn"),
  ("b158", "sage"),
  ("float", "gat"),
  slow("b158", "sgc"),
  slow("float", "gcn"),
  slow("float", "sage"),
  slow("b158", "gat"),
]


def make_config(**changes):
  return GnnConfig(**(SIZES | changes))


def make_graph(num_edges=10, seed=0):
  """Returns nodes, senders and receivers, a batch of one graph."""
  nodes = np.random.default_rng(seed).normal(size=(1, N, D))
  ends = random_graph(N, num_edges, seed=seed)
  return as_jax(nodes.astype(np.float32), *(e[None] for e in ends))


def as_jax(*arrays):
  return tuple(map(jnp.asarray, arrays))


def make_path():
  """Returns nodes 0 - 1 - 2 - ... - 8 in a row."""
  nodes, _, _ = make_graph()
  left, right = np.arange(N - 1), np.arange(1, N)
  ends = np.r_[left, right][None], np.r_[right, left][None]
  return as_jax(nodes, *ends)


def init(model, *inputs):
  return nn.unbox(jax.jit(model.init)(jax.random.key(0), *inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_the_golden_file(check_golden, kind):
  check_golden(
    f"gnn_{kind}", Gnn(make_config(kind=kind), "b158"), *make_graph()
  )


def test_parameters_for_graphs_are_those_of_the_golden_file(check_golden):
  model = Gnn(make_config(pooling="mean"), "b158")
  check_golden("gnn_pooled", model, *make_graph(), jnp.array([[4, 5]]))


@pytest.mark.parametrize(("recipe", "kind"), EVERY_KIND)
def test_numbering_of_nodes_does_not_matter(kind, recipe):
  nodes, senders, receivers = make_graph()
  model = Gnn(make_config(kind=kind), recipe)
  variables = init(model, nodes, senders, receivers)
  order = np.random.default_rng(1).permutation(N)
  place = np.argsort(order)  # of a node in the new order
  shuffled = np.random.default_rng(2).permutation(senders.shape[1])
  apply = jax.jit(model.apply)
  y = np.asarray(apply(variables, nodes, senders, receivers))
  moved = apply(
    variables,
    *as_jax(
      np.asarray(nodes)[:, order],
      place[senders][:, shuffled],
      place[receivers][:, shuffled],
    ),
  )
  if recipe == "float" or kind == "sgc":
    np.testing.assert_allclose(moved, y[:, order], **CLOSE)
  else:
    # A sum in another order moves the code of an activation here and there, by
    # one in 128, and with it some outputs.
    np.testing.assert_allclose(moved, y[:, order], atol=0.05)


@pytest.mark.parametrize("pooling", ["mean", slow("sum")])
@pytest.mark.parametrize(
  "kind", [slow(kind) if kind == "gat" else kind for kind in KINDS]
)
def test_graphs_do_not_see_each_other_nor_padding(kind, pooling):
  """By value and by gradient: two graphs in one array, with padding."""
  model = Gnn(make_config(kind=kind, pooling=pooling), "float")
  first, second = make_graph(seed=0), make_graph(seed=1)
  total = 2 * N + 3
  edges = as_jax(
    *(
      np.concatenate([a, np.asarray(b) + N, np.full((1, 4), total - 1)], axis=1)
      for a, b in zip(first[1:], second[1:], strict=True)
    )
  )
  n_node = jnp.array([[N, N, 0]])
  padding = jnp.ones((1, 3, D))

  def run(variables, first, second, padding):
    nodes = jnp.concatenate([first, second, padding], axis=1)
    return model.apply(variables, nodes, *edges, n_node)

  variables = init(model, *first, jnp.array([[N]]))
  run = jax.jit(run)
  y = np.asarray(run(variables, first[0], second[0], padding))
  assert y.shape == (1, 3, 3)
  alone = jax.jit(model.apply)
  for i, graph in enumerate((first, second)):
    expected = np.asarray(alone(variables, *graph, jnp.array([[N]])))
    np.testing.assert_allclose(y[:, i], expected[:, 0], **CLOSE)
  gradients = jax.jit(
    jax.grad(lambda *a: jnp.sum(jnp.sin(run(*a)[0, 0])), argnums=(1, 2, 3))
  )(variables, first[0], second[0], padding)
  assert np.abs(gradients[0]).max() > 0
  assert not np.any(gradients[1])
  assert not np.any(gradients[2])


@pytest.mark.parametrize(("recipe", "kind"), EVERY_KIND)
def test_output_of_a_node_depends_on_nodes_within_reach(kind, recipe):
  """Two steps: by gradient, nodes 0 to 2 reach node 0, and no other does."""
  graph = make_path()
  model = Gnn(make_config(kind=kind), recipe)
  variables = init(model, *graph)

  def output(nodes):
    return jnp.sum(jnp.sin(model.apply(variables, nodes, *graph[1:])[0, 0]))

  gradient = np.asarray(jax.jit(jax.grad(output))(graph[0]))
  reached = np.abs(gradient[0]).max(axis=1) > 0
  assert reached.tolist() == [True] * 3 + [False] * (N - 3)


def test_sgc_takes_nodes_that_are_propagated_already():
  graph = make_graph()
  model = Gnn(make_config(kind="sgc"), "b158")
  variables = init(model, *graph)
  propagate = functools.partial(message_passing.propagate, steps=2)
  apply = jax.jit(model.apply)
  np.testing.assert_allclose(
    apply(variables, jax.jit(propagate)(*graph), None, None),
    apply(variables, *graph),
    **CLOSE,
  )


@pytest.mark.parametrize("recipe", EVERY_RECIPE)
def test_overfits_one_batch(overfit, recipe):
  nodes, senders, receivers = make_graph()
  labels = jnp.arange(N)[None] % 3
  model = Gnn(make_config(kind="sage", width=32), recipe)
  bound = _OfNodes(model, senders, receivers)
  losses = overfit(bound, nodes, labels, steps=100)
  assert losses[0] > 0.7  # Chance is ln 3 = 1.1.
  assert losses[-1] < 0.3


class _OfNodes(nn.Module):
  """A model of nodes alone, its edges being fixed."""

  model: Gnn
  senders: jax.Array
  receivers: jax.Array

  def __call__(self, nodes):
    return self.model(nodes, self.senders, self.receivers)


@pytest.mark.parametrize("kind", ["gat", slow("gcn"), slow("sage")])
def test_dropout_is_active_only_when_training(kind):
  graph = make_graph()
  model = Gnn(make_config(kind=kind, dropout=0.5), "float")
  variables = init(model, *graph)

  @functools.partial(jax.jit, static_argnames="deterministic")
  def run(seed, *, deterministic):
    rngs = {"dropout": jax.random.key(seed)}
    return model.apply(
      variables, *graph, deterministic=deterministic, rngs=rngs
    )

  np.testing.assert_array_equal(
    run(0, deterministic=True), run(1, deterministic=True)
  )
  assert np.any(run(0, deterministic=False) != run(1, deterministic=False))


def test_rules_choose_the_recipe_of_a_layer_by_its_path():
  from bitnet_jax.layers import bit_layers

  rules = (("head/.*", "float"), (".*/neighbors", "trilm"), (".*", "b158"))
  model = Gnn(make_config(kind="sage"), rules)
  layers = bit_layers(model, *make_graph())
  assert {layer.path: layer.recipe.is_float for layer in layers} == {
    "layer_0/self": False,
    "layer_0/neighbors": False,
    "head/self": True,
    "head/neighbors": True,
  }
  registry.check_rules(rules, layers)


def test_torch_initializer_is_uniform_within_the_root_of_the_inputs():
  model = Gnn(make_config(kind="sgc", init="torch", num_classes=400), "b158")
  nodes = jnp.zeros((1, 2, 64))
  params = init(model, nodes, None, None)["params"]["head"]
  for leaf in (params["kernel"], params["bias"]):
    assert np.abs(leaf).max() <= 1 / 8
    assert np.abs(leaf).max() > 0.97 / 8
    assert abs(np.abs(leaf).mean() - 1 / 16) < 0.05 / 16 * 3


def test_bfloat16_is_kept_through_the_layers():
  model = Gnn(make_config(dtype="bfloat16", param_dtype="bfloat16"), "b158")
  y, variables = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), *make_graph())
  )
  assert y.dtype == jnp.bfloat16
  assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.bfloat16.dtype}


def test_many_nodes_in_bfloat16_are_pooled_in_float32():
  model = Gnn(make_config(kind="sgc", pooling="sum", dtype="bfloat16"), "float")
  nodes, n_node = jnp.ones((1, 600, 1), jnp.bfloat16), jnp.array([[600]])
  variables = init(model, nodes, None, None, n_node)
  y = model.apply(variables, nodes, None, None, n_node)
  kernel = variables["params"]["head"]["kernel"]
  # In bfloat16 the sum would stop at 256.
  np.testing.assert_allclose(
    np.asarray(y[0], np.float32), 600 * kernel, rtol=0.02
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"kind": "gin"}, "model.kind is 'gin', .*'sgc', 'gcn', 'sage', 'gat'"),
    ({"pooling": "max"}, "model.pooling is 'max', .*'none', 'mean', 'sum'"),
    ({"init": "he"}, "model.init is 'he', .*'lecun_normal'"),
    ({"width": 0}, "model.width is 0; it must be at least 1"),
    ({"depth": 0}, "model.depth is 0"),
    ({"heads": 0}, "model.heads is 0"),
    ({"steps": -1}, "model.steps is -1"),
    ({"kind": "gat", "heads": 3}, "model.width is 8, which model.heads=3"),
    ({"dropout": 1.0}, r"model.dropout is 1.0; it must lie in \[0, 1\)"),
    ({"dtype": "int8"}, "model.dtype is 'int8'"),
  ],
)
def test_size_out_of_range_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    make_config(**changes)


def test_missing_edges_and_missing_sizes_of_graphs_are_named():
  nodes, senders, receivers = make_graph()
  with pytest.raises(ValueError, match="kind is 'gcn', which needs edges"):
    Gnn(make_config(), "float").init(jax.random.key(0), nodes, None, None)
  pooled = Gnn(make_config(pooling="sum"), "float")
  with pytest.raises(ValueError, match="pooling is 'sum', which needs n_node"):
    pooled.init(jax.random.key(0), nodes, senders, receivers)
