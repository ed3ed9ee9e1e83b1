"""Graph convolutions: GCN, GraphSAGE and GAT.

A graph is an array of nodes ``[n, d]`` and, for each edge, the numbers of the
nodes at its ends: ``senders`` and ``receivers`` ``[e]``.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Int, Num

from bitnet_jax import choices
from bitnet_jax.layers.message_passing import (
  add_self_loops,
  gather,
  propagate,
  segment_mean,
  segment_softmax,
  segment_sum,
)
from bitnet_jax.layers.projections import DenseFactory, default_kernel_init
from bitnet_jax.quantizers.quantizer import check_real
from bitnet_jax.quantizers.recipe import RECIPES, Rules

_SLOPE = 0.2  # of the leaky ReLU of attention scores, as in its paper
MERGES = ("concatenate", "mean")


class GraphConv(DenseFactory):
  """Base of the graph convolutions, which share their arguments.

  A bias is added after aggregation, where it is not quantized.

  Attributes:
    features: size of the last axis of the output.
    use_bias: whether to add a bias.
    dtype: of the activations; by default what input and parameters promote to.
    param_dtype: dtype of the latent weights.
    kernel_init: initializer of the kernels.
    bias_init: initializer of the bias.
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

  @nn.nowrap
  def dense_options(self) -> dict[str, Any]:
    """Returns the arguments that all dense layers of this layer share."""
    names = ("dtype", "param_dtype", "kernel_init")
    return {name: getattr(self, name) for name in names} | {"use_bias": False}

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
    """Returns the nodes after the convolution.

    Args:
      nodes: features.
      senders: nodes where edges start, by number.
      receivers: nodes where they end.
      deterministic: whether dropout is off.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.

    Raises:
      TypeError: for complex nodes, in ``GatConv``.
      ValueError: for an unknown ``merge`` of ``GatConv``.
    """
    y = self._convolve(nodes, senders, receivers, deterministic, strength)
    if not self.use_bias:
      return y
    shape = (y.shape[-1],)
    bias = self.param("bias", self.bias_init, shape, self.param_dtype)
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + shape)


class GcnConv(GraphConv):
  """Sum over neighbours and the node itself, symmetrically normalized.

  ``D^-1/2 (A + I) D^-1/2 dense(x) + bias``; parameters ``dense/kernel``
  [d_in, features] and ``bias`` [features]. It has no dropout.

  References:
    Kipf and Welling, 2017, https://arxiv.org/abs/1609.02907.
  """

  def _convolve(self, nodes, senders, receivers, deterministic, strength):
    del deterministic  # It has no dropout.
    y = self.dense("dense", self.features)(nodes, strength=strength)
    return propagate(y, senders, receivers, steps=1)


class SageConv(GraphConv):
  """The node itself and the mean of its neighbours, each through a kernel.

  ``self(x) + mean(neighbours(x)) + bias``; parameters ``self/kernel`` and
  ``neighbors/kernel`` [d_in, features] and ``bias`` [features]. A node without
  neighbours gets no mean. The input is quantized once for both. It has no
  dropout.

  References:
    Hamilton et al., Inductive Representation Learning on Large Graphs, 2017,
    https://arxiv.org/abs/1706.02216.
  """

  def _convolve(self, nodes, senders, receivers, deterministic, strength):
    del deterministic  # It has no dropout.
    own, others = (
      self.dense(name, self.features) for name in ("self", "neighbors")
    )
    x = nodes
    if not own.find_recipe().needs_key:
      x = self.share_input(nodes, (own, others), strength)
    y, sent = own(x, strength=strength), others(x, strength=strength)
    mean = segment_mean(
      gather(sent, senders), receivers, num_segments=nodes.shape[-2]
    )
    return y + mean.astype(y.dtype)


class GatConv(GraphConv):
  """Attention over neighbours and the node itself, in several heads.

  Head h has ``x_h = dense(x)[h]`` and gives node i the weights
  softmax_j(leaky_relu(sender . x_h[j] + receiver . x_h[i])) over its
  neighbours j and itself. Parameters: ``dense/kernel`` [d_in, heads *
  features], ``sender`` and ``receiver`` [heads, features], which stay in float,
  and ``bias``.

  Attributes:
    features: outputs of each head.
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

  def _convolve(self, nodes, senders, receivers, deterministic, strength):
    choices.check(self.merge, MERGES, key="merge")
    n, shape = nodes.shape[-2], (self.heads, self.features)
    x = self.dense("dense", self.heads * self.features)(
      nodes, strength=strength
    )
    check_real(nodes=x)
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
      return jnp.mean(y, axis=-2)
    return y.reshape(*y.shape[:-2], -1)

  def _score(self, name, x):
    """One of the two terms of the scores, float32 [*batch, n, heads]."""
    init = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
    shape = (self.heads, self.features)
    vectors = self.param(name, init, shape, self.param_dtype)
    return jnp.einsum(
      "...hk,hk->...h", x.astype(jnp.float32), vectors.astype(jnp.float32)
    )
