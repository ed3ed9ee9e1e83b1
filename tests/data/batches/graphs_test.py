"""Batches of graphs: what is in them, and that they are pure functions."""

import numpy as np
import pytest

from bitnet_jax.data import graphs
from bitnet_jax.data.batches.graphs import (
  Budget,
  Layout,
  assemble,
  eval_batches,
  train_batches,
)
from bitnet_jax.data.views.graph_sets import GraphSplit


def make_split(count=23, seed=0):
  """Rings of 3 to 12 nodes whose features are the number of the graph."""
  rng = np.random.default_rng(seed)
  made = []
  for i in range(count):
    n = int(rng.integers(3, 13))
    ring = np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1)
    senders, receivers = graphs.both_directions(ring, num_nodes=n, where="")
    features = np.full((n, 2), i, np.float32)
    made.append(
      graphs.Graph(features=features, senders=senders, receivers=receivers)
    )
  return GraphSplit(
    graphs=tuple(made),
    labels=np.arange(count, dtype=np.int32) % 5,
    names=tuple(f"ring {i}" for i in range(count)),
  )


def layout(batch_size=6, parts=1):
  return Layout(batch_size=batch_size, parts=parts)


def numbers(batch):
  """The graphs of a batch, by their features, in order."""
  found = []
  for nodes, n_node in zip(batch["nodes"], batch["n_node"], strict=True):
    ends = np.cumsum(n_node)
    found += [int(nodes[end - 1, 0]) for end in ends[n_node > 0]]
  return sorted(found)


def test_graphs_stand_one_behind_the_other():
  split = make_split()
  batch = assemble(split, np.array([[4, -1, 2]]), Budget(nodes=40, edges=90))
  first, second = split.graphs[4], split.graphs[2]
  n, m = first.num_nodes, second.num_nodes
  e = first.num_edges + second.num_edges
  assert batch["n_node"].tolist() == [[n, 0, m]]
  assert batch["labels"].tolist() == [[4, 0, 2]]
  assert batch["mask"].tolist() == [[1, 0, 1]]
  np.testing.assert_array_equal(
    batch["nodes"][0, :, 0], [4] * n + [2] * m + [0] * (40 - n - m)
  )
  for key in ("senders", "receivers"):
    ends = [getattr(first, key), getattr(second, key) + n]
    expected = np.concatenate([*ends, np.full(90 - e, 39)])
    np.testing.assert_array_equal(batch[key][0], expected)
    assert batch[key].dtype == np.int32


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_an_epoch_goes_once_through_all_graphs_within_the_budget(parts):
  split = make_split()
  budget = layout(parts=parts).budget({"train": split})
  batch_at = train_batches(split, layout(parts=parts), budget, seed=1)
  for epoch in range(3):
    batches = [batch_at(4 * epoch + i) for i in range(4)]
    for batch in batches:
      assert batch["nodes"].shape == (parts, budget.nodes, 2)
      assert batch["senders"].shape == (parts, budget.edges)
      assert batch["n_node"].sum(axis=1).max() < budget.nodes
    found = [number for batch in batches for number in numbers(batch)]
    assert sorted(found) == list(range(23))


def test_budget_is_little_more_than_the_mean():
  split = make_split(200)
  budget = layout(20).budget({"train": split})
  mean = sum(g.num_nodes for g in split.graphs) / 10
  assert budget.nodes - 1 < 1.1 * mean


def test_batches_are_a_pure_function_of_seed_and_step():
  split = make_split()
  budget = layout().budget({"train": split})
  first, again = (
    train_batches(split, layout(), budget, seed=3) for _ in range(2)
  )
  other = train_batches(split, layout(), budget, seed=4)
  steps = [9, 0, 5, 2]  # In any order.
  expected = {step: first(step) for step in steps}
  for step in sorted(steps):
    for key, array in again(step).items():
      np.testing.assert_array_equal(array, expected[step][key])
  assert numbers(first(0)) != numbers(first(4))  # Another epoch.
  assert any(numbers(other(s)) != numbers(expected[s]) for s in steps)


def test_parts_and_processes_share_the_same_batch():
  split = make_split()
  whole = train_batches(split, layout(), layout().budget({"": split}), seed=0)
  shared = layout(parts=2)
  budget = shared.budget({"": split})
  together = train_batches(split, shared, budget, seed=0)
  by_process = [
    train_batches(
      split, shared, budget, seed=0, process_index=i, process_count=2
    )
    for i in range(2)
  ]
  for step in range(5):
    batch = together(step)
    assert numbers(batch) == numbers(whole(step))
    for key, array in batch.items():
      joined = np.concatenate([at(step)[key] for at in by_process])
      np.testing.assert_array_equal(joined, array)


def test_evaluation_goes_once_through_a_split():
  split = make_split(7)
  shared = layout(4, parts=2)
  batches = list(eval_batches(split, shared, shared.budget({"": split})))
  assert len(batches) == 2
  assert sum(batch["mask"].sum() for batch in batches) == 7
  found = [number for batch in batches for number in numbers(batch)]
  assert sorted(found) == list(range(7))


def test_batch_larger_than_the_split_holds_all_of_it():
  split = make_split(5)
  budget = layout(8).budget({"": split})
  batch = train_batches(split, layout(8), budget, seed=0)(3)
  assert numbers(batch) == list(range(5))
  assert batch["mask"].sum() == 5


def test_graph_larger_than_the_budget_is_named_with_its_size():
  split = make_split()
  sizes = [graph.num_nodes for graph in split.graphs]
  largest = max(sizes)
  name = split.names[sizes.index(largest)]
  with pytest.raises(
    ValueError, match=f"the graph {name} has {largest} nodes, but the budget"
  ):
    layout().choose_budget({"": split}, nodes=largest, edges=None)
  with pytest.raises(
    ValueError, match=r"the graph ring \d+ has \d+ edges, but the budget"
  ):
    layout().choose_budget({"": split}, nodes=None, edges=2 * largest - 1)


def test_batch_larger_than_the_budget_is_named_with_what_it_needs():
  split = make_split()
  least = layout().budget({"": split})
  with pytest.raises(
    ValueError,
    match=f"{least.nodes - 1} nodes, but its 6 graphs may need {least.nodes}",
  ):
    layout().choose_budget({"": split}, nodes=least.nodes - 1, edges=None)
  chosen = layout().choose_budget({"": split}, nodes=500, edges=1000)
  assert chosen == Budget(nodes=500, edges=1000)


def test_parts_that_do_not_divide_a_batch_are_named():
  split = make_split()
  with pytest.raises(ValueError, match="6 graphs does not split into 4 parts"):
    train_batches(split, layout(parts=4), Budget(nodes=99, edges=99), seed=0)
