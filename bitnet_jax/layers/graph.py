"""Message passing over edges, and the graph convolutions made of it.

A graph is an array of nodes ``[n, d]`` and the ends of its edges, ``senders``
and ``receivers`` ``[e]``: numbers of nodes, each edge in one direction. All
functions take any number of leading batch axes, of graphs with as many nodes
and edges each. What fills a batch are nodes and edges among them, which never
reach the others.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Num

from bitnet_jax import choices
from bitnet_jax.layers.dense import BitDense, default_kernel_init
from bitnet_jax.ops.operands import quantize_input
from bitnet_jax.quantizers.recipe import RECIPES, Recipe, Rules, recipe_at

_SLOPE = 0.2  # of the leaky ReLU of attention scores, as in its paper

MERGES = ("concatenate", "mean")


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
    n_node: how many nodes each graph has; they stand one behind the other.
    num_nodes: length of the result; what is left at its end is padding, and of
      graph ``g``, which ``segment_sum`` leaves out.
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
  """Adds up what belongs to the same segment.

  Args:
    values: ``[*batch, e, *features]``.
    segments: of each value; one beyond the last leaves the value out.
    num_segments: how many there are.

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
) -> Float[Array, "..."]:
  """Returns means in place of the sums of ``segment_sum``, also zero for an
  empty segment; in float32.
  """
  sums = segment_sum(
    values.astype(jnp.float32), segments, num_segments=num_segments
  )
  counts = jnp.maximum(count(segments, num_segments=num_segments), 1)
  return sums / counts.reshape(counts.shape + (1,) * (sums.ndim - counts.ndim))


def count(
  segments: Int[Array, "*batch e"], *, num_segments: int
) -> Float[Array, "*batch s"]:
  """Returns how often each segment occurs: of receivers, the degrees."""
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
  """
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

  The degree of a node is the number of edges that it receives; one that only
  sends counts as of degree 1. With self loops among the edges this is the
  normalization of the reference.

  References:
    Kipf and Welling, Semi-Supervised Classification with Graph Convolutional
    Networks, 2017, https://arxiv.org/abs/1609.02907, equation 2.
  """
  degrees = jnp.maximum(count(receivers, num_segments=num_nodes), 1)
  factors = jax.lax.rsqrt(degrees)
  return gather(factors, senders) * gather(factors, receivers)


def aggregate(
  nodes: Float[Array, "*batch n d"],
  senders: Int[Array, "*batch e"],
  receivers: Int[Array, "*batch e"],
  weights: Float[Array, "*batch e"],
) -> Float[Array, "*batch n d"]:
  """Adds up, at each node, what its edges send: weight times node.

  Sums are taken in float32 and returned in the dtype of the nodes.
  """
  messages = gather(nodes, senders).astype(jnp.float32) * weights[..., None]
  sums = segment_sum(messages, receivers, num_segments=nodes.shape[-2])
  return sums.astype(nodes.dtype)


def propagate(
  nodes: Float[Array, "*batch n d"],
  senders: Int[Array, "*batch e"],
  receivers: Int[Array, "*batch e"],
  *,
  steps: int,
) -> Float[Array, "*batch n d"]:
  """Multiplies nodes ``steps`` times by the normalized adjacency matrix.

  That is ``(D^-1/2 (A + I) D^-1/2)^steps X``: all that SGC does to features
  before its one linear layer.

  References:
    Wu et al., Simplifying Graph Convolutional Networks, 2019,
    https://arxiv.org/abs/1902.07153.
  """
  n = nodes.shape[-2]
  senders, receivers = add_self_loops(senders, receivers, num_nodes=n)
  weights = symmetric_weights(senders, receivers, num_nodes=n)
  for _ in range(steps):
    nodes = aggregate(nodes, senders, receivers, weights)
  return nodes


def _for_each_graph(
  function: Callable[..., jax.Array], index: jax.Array
) -> Callable[..., jax.Array]:
  """Maps a function of one graph over the batch axes of its edges."""
  for _ in range(index.ndim - 1):
    function = jax.vmap(function)
  return function


class GraphConv(nn.Module):
  """What the convolutions share; see ``BitDense`` for the attributes.

  A bias is added after aggregation, where it is not quantized.

  Attributes:
    features: size of the last axis of the output.
    use_bias: whether to add a bias.
    dtype: see ``BitDense``, like the rest.
    param_dtype: see ``BitDense``.
    kernel_init: see ``BitDense``.
    bias_init: see ``BitDense``.
    recipe: one for all dense layers inside, or (pattern, recipe) rules on
      their paths from the top of the model ("layer_0/dense").
  """

  features: int
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: nn.initializers.Initializer = default_kernel_init
  bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
  _: dataclasses.KW_ONLY
  recipe: Rules = RECIPES["b158"]

  def _recipe(self, name: str) -> Recipe:
    return recipe_at(self.recipe, "/".join((*self.path, name)))

  def _dense(self, features: int, name: str) -> BitDense:
    return BitDense(
      features,
      use_bias=False,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      kernel_init=self.kernel_init,
      recipe=self._recipe(name),
      name=name,
    )

  def _add_bias(self, y):
    if not self.use_bias:
      return y
    shape = (y.shape[-1],)
    bias = self.param("bias", self.bias_init, shape, self.param_dtype)
    return y + bias.astype(y.dtype)


class GcnConv(GraphConv):
  """Sum over neighbours and the node itself, symmetrically normalized.

  ``D^-1/2 (A + I) D^-1/2 dense(x) + bias``; parameters ``dense/kernel``
  [d_in, features] and ``bias`` [features]. See ``GraphConv`` for the
  attributes.

  References:
    Kipf and Welling, 2017, https://arxiv.org/abs/1609.02907.
  """

  @nn.compact
  def __call__(
    self,
    nodes: Num[Array, "*batch n d_in"],
    senders: Int[Array, "*batch e"],
    receivers: Int[Array, "*batch e"],
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "*batch n d_out"]:
    """Returns the nodes after the convolution."""
    y = self._dense(self.features, "dense")(nodes, strength=strength)
    y = propagate(y, senders, receivers, steps=1)
    return self._add_bias(y)


class SageConv(GraphConv):
  """The node itself and the mean of its neighbours, each through a kernel.

  ``self(x) + mean(neighbours(x)) + bias``; parameters ``self/kernel`` and
  ``neighbors/kernel`` [d_in, features] and ``bias`` [features]. A node without
  neighbours gets no mean. The input is quantized once for both. See
  ``GraphConv`` for the attributes.

  References:
    Hamilton et al., Inductive Representation Learning on Large Graphs, 2017,
    https://arxiv.org/abs/1706.02216.
  """

  @nn.compact
  def __call__(
    self,
    nodes: Num[Array, "*batch n d_in"],
    senders: Int[Array, "*batch e"],
    receivers: Int[Array, "*batch e"],
    *,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "*batch n d_out"]:
    """Returns the nodes after the convolution."""
    recipe, x = self._recipe("self"), nodes
    shared = recipe.is_integer and recipe == self._recipe("neighbors")
    if shared and strength is None and not recipe.needs_key:
      x = quantize_input(nodes, recipe)
    y = self._dense(self.features, "self")(x, strength=strength)
    sent = self._dense(self.features, "neighbors")(x, strength=strength)
    mean = segment_mean(
      gather(sent, senders), receivers, num_segments=nodes.shape[-2]
    )
    return self._add_bias(y + mean.astype(y.dtype))


class GatConv(GraphConv):
  """Attention over neighbours and the node itself, in several heads.

  Head h has ``x_h = dense(x)[h]`` and gives node i the weights
  softmax_j(leaky_relu(sender . x_h[j] + receiver . x_h[i])) over its
  neighbours j and itself. Parameters: ``dense/kernel`` [d_in, heads *
  features], ``sender`` and ``receiver`` [heads, features], which stay in float,
  and ``bias``. See ``GraphConv`` for the other attributes.

  Attributes:
    heads: number of heads.
    merge: "concatenate" heads, which gives heads * features outputs, or take
      their "mean".
    dropout: rate for the weights, from the random stream "dropout".

  References:
    Veličković et al., Graph Attention Networks, 2018,
    https://arxiv.org/abs/1710.10903.
  """

  _: dataclasses.KW_ONLY
  heads: int = 1
  merge: str = "concatenate"
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self,
    nodes: Num[Array, "*batch n d_in"],
    senders: Int[Array, "*batch e"],
    receivers: Int[Array, "*batch e"],
    *,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "*batch n d_out"]:
    """Returns the nodes after the convolution."""
    choices.check(self.merge, MERGES, key="merge")
    n, shape = nodes.shape[-2], (self.heads, self.features)
    x = self._dense(self.heads * self.features, "dense")(
      nodes, strength=strength
    )
    x = x.reshape(*x.shape[:-1], *shape)
    senders, receivers = add_self_loops(senders, receivers, num_nodes=n)
    scores = gather(self._score("sender", x), senders)
    scores += gather(self._score("receiver", x), receivers)
    weights = segment_softmax(
      nn.leaky_relu(scores, _SLOPE), receivers, num_segments=n
    )
    weights = nn.Dropout(self.dropout, deterministic=deterministic)(weights)
    messages = gather(x, senders).astype(jnp.float32) * weights[..., None]
    y = segment_sum(messages, receivers, num_segments=n).astype(x.dtype)
    if self.merge == "mean":
      y = jnp.mean(y, axis=-2)
    else:
      y = y.reshape(*y.shape[:-2], -1)
    return self._add_bias(y)

  def _score(self, name, x):
    """One of the two terms of the scores, float32 [*batch, n, heads]."""
    init = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
    shape = (self.heads, self.features)
    vectors = self.param(name, init, shape, self.param_dtype)
    return jnp.einsum(
      "...hk,hk->...h", x.astype(jnp.float32), vectors.astype(jnp.float32)
    )
