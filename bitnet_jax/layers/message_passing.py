"""Message passing over edges.

A graph is an array of nodes ``[n, d]`` and, for each edge, the numbers of the
nodes at its ends: ``senders`` and ``receivers`` ``[e]``. An edge has one
direction. All functions take any number of leading batch axes; all graphs of a
batch have the same numbers of nodes and edges. Padding consists of nodes, and
of edges among these. A GPU sums over edges in no fixed order, so the last bits
of a sum may differ from call to call.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, Num

from bitnet_jax.ops.operands import as_floats
from bitnet_jax.quantizers.quantizer import check_real


def add_self_loops(
  senders: Int[Array, "*batch e"],
  receivers: Int[Array, "*batch e"],
  *,
  num_nodes: int,
) -> tuple[Int[Array, "*batch e_and_n"], Int[Array, "*batch e_and_n"]]:
  """Adds an edge from each node to itself; the graph should have none."""
  loops = jnp.arange(num_nodes, dtype=senders.dtype)
  loops = jnp.broadcast_to(loops, (*senders.shape[:-1], num_nodes))
  return (
    jnp.concatenate([senders, loops], axis=-1),
    jnp.concatenate([receivers, loops], axis=-1),
  )


def graph_of_node(
  n_node: Int[Array, "*batch g"], *, num_nodes: int
) -> Int[Array, "*batch n"]:
  """Returns the number of the graph of each node.

  Args:
    n_node: number of nodes of each graph, one graph after the other.
    num_nodes: length of the result; the nodes at its end that belong to no
      graph are padding, and get number ``g``, which ``segment_sum`` leaves out.
  """

  def one(n_node):
    ends = jnp.cumsum(n_node)
    return jnp.searchsorted(ends, jnp.arange(num_nodes), side="right")

  return _for_each_graph(one, n_node)(n_node)


def gather(
  nodes: Num[Array, "..."], index: Int[Array, "*batch e"]
) -> Num[Array, "..."]:
  """Returns ``nodes[index]`` ``[*batch, e, *features]``, by graph."""
  return _for_each_graph(lambda x, i: x[i], index)(nodes, index)


def segment_sum(
  values: Num[Array, "..."],
  segments: Int[Array, "*batch e"],
  *,
  num_segments: int,
) -> Num[Array, "..."]:
  """Sums the values of each segment.

  Args:
    values: ``[*batch, e, *features]``.
    segments: segments of each value; one beyond the last leaves the value out.
    num_segments: number of segments.

  Returns:
    Sums ``[*batch, num_segments, *features]``, zero for an empty segment.
  """

  def sum_one(values, segments):
    return jax.ops.segment_sum(values, segments, num_segments)

  return _for_each_graph(sum_one, segments)(values, segments)


def segment_mean(
  values: Num[Array, "..."],
  segments: Int[Array, "*batch e"],
  *,
  num_segments: int,
) -> Inexact[Array, "..."]:
  """Averages the values of each segment; an empty segment gives zero.

  The result is float32, or has the dtype of values that are wider.
  """
  sums = segment_sum(_widened(values), segments, num_segments=num_segments)
  counts = jnp.maximum(count(segments, num_segments=num_segments), 1)
  counts = counts.reshape(counts.shape + (1,) * (sums.ndim - counts.ndim))
  return sums / counts.astype(sums.dtype)


def count(
  segments: Int[Array, "*batch e"], *, num_segments: int
) -> Float[Array, "*batch s"]:
  """Counts how often each segment occurs; for receivers, the degrees."""
  ones = jnp.ones(segments.shape, jnp.float32)
  return segment_sum(ones, segments, num_segments=num_segments)


def segment_softmax(
  scores: Float[Array, "..."],
  segments: Int[Array, "*batch e"],
  *,
  num_segments: int,
) -> Float[Array, "..."]:
  """Normalizes scores ``[*batch, e, *heads]`` within each segment.

  Returns:
    float32 weights of the shape of the scores, not negative, that add up to 1
    over the members of a segment.

  Raises:
    TypeError: for complex scores.
  """
  check_real(scores=scores)
  scores = scores.astype(jnp.float32)

  def largest(scores, segments):
    return jax.ops.segment_max(scores, segments, num_segments)

  # Any shift gives the same weights, so that it needs no gradient.
  shift = _for_each_graph(largest, segments)(
    jax.lax.stop_gradient(scores), segments
  )
  exps = jnp.exp(scores - gather(shift, segments))
  sums = segment_sum(exps, segments, num_segments=num_segments)
  return exps / gather(sums, segments)


def symmetric_weights(
  senders: Int[Array, "*batch e"],
  receivers: Int[Array, "*batch e"],
  *,
  num_nodes: int,
) -> Float[Array, "*batch e"]:
  """Returns ``1 / sqrt(degree(sender) * degree(receiver))`` of each edge.

  The degree of a node is the number of edges that it receives, and at least 1.
  With self loops among the edges this is the
  normalization of the reference.

  References:
    Kipf and Welling, Semi-Supervised Classification with Graph Convolutional
    Networks, 2017, https://arxiv.org/abs/1609.02907, equation 2.
  """
  degrees = jnp.maximum(count(receivers, num_segments=num_nodes), 1)
  factors = jax.lax.rsqrt(degrees)
  return gather(factors, senders) * gather(factors, receivers)


def aggregate(
  nodes: Num[Array, "*batch n d"],
  senders: Int[Array, "*batch e"],
  receivers: Int[Array, "*batch e"],
  weights: Float[Array, "*batch e"],
) -> Inexact[Array, "*batch n d"]:
  """Sums, for each receiving node, its senders times the weights of the edges.

  Sums are taken in float32, or in the dtype of nodes that are wider (float64,
  complex), and returned in the dtype of the nodes; in float32 for integers and
  booleans, which weighted sums are not.
  """
  nodes = as_floats(nodes)
  messages = _widened(gather(nodes, senders))
  messages = messages * weights[..., None].astype(messages.dtype)
  sums = segment_sum(messages, receivers, num_segments=nodes.shape[-2])
  return sums.astype(nodes.dtype)


def propagate(
  nodes: Num[Array, "*batch n d"],
  senders: Int[Array, "*batch e"],
  receivers: Int[Array, "*batch e"],
  *,
  steps: int,
) -> Inexact[Array, "*batch n d"]:
  """Multiplies nodes ``steps`` times by the normalized adjacency matrix.

  That is ``(D^-1/2 (A + I) D^-1/2)^steps X``: all that SGC does to features
  before its one linear layer. The dtype is that of ``aggregate``.

  References:
    Wu et al., Simplifying Graph Convolutional Networks, 2019,
    https://arxiv.org/abs/1902.07153.
  """
  nodes, n = as_floats(nodes), nodes.shape[-2]
  senders, receivers = add_self_loops(senders, receivers, num_nodes=n)
  weights = symmetric_weights(senders, receivers, num_nodes=n)
  for _ in range(steps):
    nodes = aggregate(nodes, senders, receivers, weights)
  return nodes


def _widened(x: Num[Array, "..."]) -> Inexact[Array, "..."]:
  """Returns ``x`` in the dtype that it is summed in: at least float32."""
  x = as_floats(x)
  return x if x.dtype.itemsize > 4 else x.astype(jnp.float32)


def _for_each_graph(
  function: Callable[..., jax.Array], index: jax.Array
) -> Callable[..., jax.Array]:
  """Maps a function of one graph over the batch axes of its edges."""
  for _ in range(index.ndim - 1):
    function = jax.vmap(function)
  return function
