"""Graph networks: SGC, GCN, GraphSAGE and GAT, for nodes and for graphs."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Int, Num

from bitnet_jax.layers import graph, message_passing
from bitnet_jax.layers.introspection import kernel_at
from bitnet_jax.models.base import Call, Model, ModelConfig
from bitnet_jax.ops.operands import as_floats
from bitnet_jax.quantizers.quantizer import check_real

CONVOLUTIONS: dict[str, type[graph.GraphConv]] = {
  "gcn": graph.GcnConv,
  "sage": graph.SageConv,
  "gat": graph.GatConv,
}
KINDS = ("sgc", *CONVOLUTIONS)
_ACTIVATIONS = {"gcn": nn.relu, "sage": nn.relu, "gat": nn.elu}
POOLINGS = {
  "none": None,
  "mean": message_passing.segment_mean,
  "sum": message_passing.segment_sum,
}


def _uniform_in(key, shape, dtype, *, d_in):
  bound = 1 / math.sqrt(d_in)
  return jax.random.uniform(key, shape, dtype, -bound, bound)


# Initializers of kernel and bias by the size of the input.
INITS = {
  "lecun_normal": lambda d_in: (
    nn.initializers.lecun_normal(),
    nn.initializers.zeros_init(),
  ),
  "glorot_uniform": lambda d_in: (
    nn.initializers.glorot_uniform(),
    nn.initializers.zeros_init(),
  ),
  "torch": lambda d_in: (functools.partial(_uniform_in, d_in=d_in),) * 2,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GnnConfig(ModelConfig):
  """Sizes of a ``Gnn``.

  Attributes:
    kind: "sgc", "gcn", "sage" or "gat".
    width: units of each hidden convolution; of "gat" those of all its heads.
    depth: number of hidden convolutions; "sgc" has none, whatever this says.
    heads: heads of a hidden convolution of "gat".
    steps: propagation steps of "sgc".
    dropout: rate before each layer, the first one too, and for the attention
      weights of "gat", in [0, 1).
    pooling: "none" for outputs of nodes; "mean" or "sum" over the nodes of a
      graph for outputs of graphs.
    init: "lecun_normal" or "glorot_uniform" kernels and zero biases; or both
      as PyTorch's linear layers have them, uniform within 1 / sqrt(inputs):
      "torch".
    num_classes: number of outputs.
    dtype: dtype of activations, a name in ``DTYPES``.
    param_dtype: dtype of the latent weights, a name in ``DTYPES``.
  """

  kind: str
  width: int
  depth: int = 1
  heads: int = 1
  steps: int = dataclasses.field(default=2, metadata={"least": 0})
  pooling: str = "none"
  init: str = "glorot_uniform"
  num_classes: int

  def __post_init__(self):
    super().__post_init__()
    self.check_choices(kind=KINDS, pooling=POOLINGS, init=INITS)
    if self.kind == "gat" and self.width % self.heads:
      raise ValueError(
        f"model.width is {self.width}, which model.heads={self.heads} does not"
        " divide"
      )


class Gnn(Model):
  """Convolutions ``layer_0``, ``layer_1``, ... with ReLU (ELU in "gat"), then
  ``head``.

  The head is a convolution too, with one head in "gat", if the outputs are
  those of nodes; a dense layer if they are those of graphs, and in "sgc".

  Attributes:
    cfg: sizes.
    recipe: one recipe for all layers, or (pattern, recipe) rules on their
      paths ("layer_0/dense").
  """

  cfg: GnnConfig

  @nn.compact
  def __call__(
    self,
    nodes: Num[Array, "batch n d_in"],
    senders: Int[Array, "batch e"] | None,
    receivers: Int[Array, "batch e"] | None,
    n_node: Int[Array, "batch g"] | None = None,
    *,
    deterministic: bool = True,
    strength: ArrayLike | None = None,
  ) -> Num[Array, "batch outputs num_classes"]:
    """Returns logits of each node, or of each graph.

    Args:
      nodes: features.
      senders: where edges start; an undirected edge is there in both
        directions, without self loops. ``None``, and ``receivers`` too, for an
        "sgc" whose nodes are propagated already.
      receivers: where edges end.
      n_node: number of nodes of each graph, for pooling; the graphs of an
        element of the batch follow one another.
      deterministic: whether dropout is off.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    """
    check_real(nodes=nodes)
    cfg, x = self.cfg, as_floats(nodes)
    drop = nn.Dropout(cfg.dropout, deterministic=deterministic)
    modes = {"deterministic": deterministic, "strength": strength}
    if cfg.kind == "sgc":
      if senders is not None and receivers is not None:
        x = message_passing.propagate(x, senders, receivers, steps=cfg.steps)
    elif senders is None or receivers is None:
      raise ValueError(f"kind is {cfg.kind!r}, which needs edges")
    else:
      for i in range(cfg.depth):
        conv = self._conv(x, f"layer_{i}", (None if i == 0 else "embed", "mlp"))
        x = _ACTIVATIONS[cfg.kind](conv(drop(x), senders, receivers, **modes))
        x = nn.with_logical_constraint(x, ("batch", None, "mlp"))
      if cfg.pooling == "none":
        conv = self._conv(x, "head", ("embed", None))
        return conv(drop(x), senders, receivers, **modes)
    x = self._pool(x, n_node)
    kernel_init, bias_init = INITS[cfg.init](x.shape[-1])
    head = self.dense(
      "head",
      cfg.num_classes,
      (None if cfg.kind == "sgc" else "embed", None),
      kernel_init=kernel_init,
      bias_init=bias_init,
    )
    return head(drop(x), strength=strength)

  def _pool(self, x, n_node):
    """Pools the nodes of each graph, if the outputs are of graphs."""
    pool = POOLINGS[self.cfg.pooling]
    if pool is None:
      return x
    if n_node is None:
      raise ValueError(f"pooling is {self.cfg.pooling!r}, which needs n_node")
    graphs = message_passing.graph_of_node(n_node, num_nodes=x.shape[-2])
    pooled = pool(x.astype(jnp.float32), graphs, num_segments=n_node.shape[-1])
    return pooled.astype(x.dtype)

  def _conv(self, x, name, axes):
    """Returns a convolution; the head has an output for each class."""
    cfg, is_head = self.cfg, name == "head"
    features = cfg.num_classes if is_head else cfg.width
    kernel_init, bias_init = INITS[cfg.init](x.shape[-1])
    options: dict[str, Any] = {
      "kernel_init": nn.with_logical_partitioning(kernel_init, axes),
      "bias_init": bias_init,
      "recipe": self.recipe,
      "name": name,
      **cfg.dtypes,
    }
    if cfg.kind != "gat":
      return CONVOLUTIONS[cfg.kind](features, **options)
    heads = 1 if is_head else cfg.heads
    return graph.GatConv(
      features // heads, heads=heads, dropout=cfg.dropout, **options
    )

  @nn.nowrap
  def example_call(self, params: Any) -> Call:
    """Returns one node of one graph, as shapes, with an edge to itself."""
    inside = {"sgc": "head", "sage": "layer_0/self"}
    first = inside.get(self.cfg.kind, "layer_0/dense")
    d_in = kernel_at(params, first).shape[0]
    number = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    graphs = None if self.cfg.pooling == "none" else number
    nodes = jax.ShapeDtypeStruct((1, 1, d_in), jnp.float32)
    return (nodes, number, number, graphs), {}
