"""Random graphs of four kinds, all with about twice as many edges as nodes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bitnet_jax import choices
from bitnet_jax.data import splits
from bitnet_jax.data.sources.tables import Records, Source
from bitnet_jax.extras import needed_by

_SEED = 0
_PER_CLASS = {"train": 250, "valid": 75, "test": 125}
_NODES = (20, 40)  # fewest and most nodes of a graph
_REWIRED = 0.2  # fraction of rewired edges of a small world


def draw(kind: str, num_nodes: int, *, seed: int) -> np.ndarray:
  """Draws a graph.

  Args:
    kind: "uniform" (Erdős-Rényi, so many edges between any nodes),
      "preferential" (Barabási-Albert, new nodes prefer those with many edges),
      "small_world" (Watts-Strogatz, a ring with a fifth of its edges moved) or
      "geometric" (the nearest pairs of points in a square).
    num_nodes: at least 6.
    seed: a graph is a pure function of it.

  Returns:
    Edges [m, 2], each once.
  """
  generate = choices.pick(GENERATORS, kind, key="kind")
  return generate(num_nodes, seed)


def versions() -> str:
  """Returns what the graphs of a seed depend on."""
  return f"networkx {_networkx().__version__} numpy {np.__version__}"


def _networkx() -> Any:
  with needed_by("embedded:graphs", "networkx"):
    import networkx
  return networkx


def _uniform(n, seed):
  return np.array(_networkx().gnm_random_graph(n, 2 * n, seed=seed).edges)


def _preferential(n, seed):
  return np.array(_networkx().barabasi_albert_graph(n, 2, seed=seed).edges)


def _small_world(n, seed):
  graph = _networkx().watts_strogatz_graph(n, 4, _REWIRED, seed=seed)
  return np.array(graph.edges)


def _geometric(n, seed):
  points = np.random.default_rng(seed).random((n, 2))
  pairs = np.stack(np.triu_indices(n, 1), axis=1)
  apart = np.square(points[pairs[:, 0]] - points[pairs[:, 1]]).sum(axis=1)
  return pairs[np.argsort(apart, kind="stable")[: 2 * n]]


GENERATORS: dict[str, Callable[[int, int], np.ndarray]] = {
  "uniform": _uniform,
  "preferential": _preferential,
  "small_world": _small_world,
  "geometric": _geometric,
}


def read(name: str, cuts: splits.Cuts) -> Source:
  """The set embedded:graphs; the labels of its graphs are their generators."""
  rng = np.random.default_rng(_SEED)
  kinds = tuple(GENERATORS)
  counts = {key: len(kinds) * count for key, count in _PER_CLASS.items()}
  total = sum(counts.values())
  sizes = rng.integers(*_NODES, size=total, endpoint=True).tolist()
  seeds = rng.integers(2**31, size=total).tolist()
  records = [
    {
      "edges": draw(kinds[i % len(kinds)], n, seed=seed),
      "num_nodes": np.array(n),
      "label": np.array(i % len(kinds)),
    }
    for i, (n, seed) in enumerate(zip(sizes, seeds, strict=True))
  ]
  tables, first = {}, 0
  for key, count in counts.items():
    tables[key] = Records(
      records=records[first : first + count],
      name="embedded:graphs",
      unit="graph",
      first=first,
    )
    first += count
  return Source(
    splits=tables,
    fingerprint=f"embedded:graphs {versions()}",
    class_names={"label": kinds},
  )
