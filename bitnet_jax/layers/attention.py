"""Multi-head attention with ternary projections."""

from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from bitnet_jax.layers.dense import default_kernel_init
from bitnet_jax.layers.projections import (
  make_dense,
  no_partitioning,
  share_input,
)
from bitnet_jax.ops import compute
from bitnet_jax.quantizers.recipe import Rules

_PROJECTIONS = ("query", "key", "value")
# Blocks of queries in causal attention of that many tokens or more.
_BLOCKS, _LONG = 4, 256


@flax.struct.dataclass
class AttentionCache:
  """What one attention remembers of the tokens before.

  Attributes:
    keys: [b, s, kv_heads, k], rotated.
    values: [b, s, kv_heads, k].
  """

  keys: jax.Array
  values: jax.Array


def rotate(
  x: Float[Array, "b t h k"], positions: Int[Array, "b t"], *, base: float
) -> Float[Array, "b t h k"]:
  """Applies rotary position embedding (RoFormer, 2104.09864).

  The first half of a head's features is paired with the second half, as in
  Llama. Angles are computed in float32.

  Args:
    x: queries or keys; ``k`` is even.
    positions: of the tokens.
    base: of the geometric series of wavelengths.
  """
  half = x.shape[-1] // 2
  frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = jnp.multiply.outer(positions.astype(jnp.float32), frequencies)
  angles = angles[:, :, None]  # The same for all heads.
  # Else compilers fuse them into what follows, once for each head.
  cos, sin = jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def make_mask(
  *,
  positions: tuple[Int[Array, "b t"], Int[Array, "b s"]] | None = None,
  segments: tuple[Int[Array, "b t"], Int[Array, "b s"]] | None = None,
) -> Bool[Array, "b 1 t s"] | None:
  """Returns which keys each query sees.

  Args:
    positions: of queries and keys: a query sees the keys up to its own
      position, and none of a negative one. ``None`` for attention both ways.
    segments: of queries and keys: a query sees the keys of its own segment;
      0 marks padding, which is masked. ``None`` for one segment.

  Returns:
    The mask; ``None`` if everything is seen.
  """
  seen = None
  if positions is not None:
    query, key = positions[0][:, :, None], positions[1][:, None, :]
    seen = (key <= query) & (key >= 0)
  if segments is not None:
    query, key = segments[0][:, :, None], segments[1][:, None, :]
    same = (key == query) & (key > 0)
    seen = same if seen is None else seen & same
  return None if seen is None else seen[:, None]


def attend(
  query: Float[Array, "b t h k"],
  keys: Float[Array, "b s kv_heads k"],
  values: Float[Array, "b s kv_heads k"],
  *,
  mask: Bool[Array, "b 1 #t s"] | None = None,
  is_causal: bool = False,
) -> Float[Array, "b t h k"]:
  """Returns ``jax.nn.dot_product_attention``.

  Causal attention of many tokens is computed in blocks of queries, each with
  the keys up to its end, which leaves out 3/8 of the work: what is masked.

  Args:
    query: what asks; ``h`` is a multiple of ``kv_heads``.
    keys: one for each value.
    values: what is averaged.
    mask: which keys each query sees.
    is_causal: whether each query sees the keys up to its own place only.
  """
  t = query.shape[1]
  if not is_causal or t < _LONG or t % _BLOCKS or keys.shape[1] != t:
    return _attend(query, keys, values, mask=mask, is_causal=is_causal)
  found = []
  for start in range(0, t, t // _BLOCKS):
    end = start + t // _BLOCKS
    seen = jnp.tri(end - start, end, start, dtype=bool)[None, None]
    if mask is not None:
      rows = slice(None) if mask.shape[2] == 1 else slice(start, end)
      seen &= mask[:, :, rows, :end]
    found.append(
      _attend(query[:, start:end], keys[:, :end], values[:, :end], mask=seen)
    )
  return jnp.concatenate(found, axis=1)


def _attend(query, keys, values, **options):
  """Is ``jax.nn.dot_product_attention``, in float16 too.

  XLA's CPU backend refuses the product of float16 that JAX asks for.
  """
  dtype = query.dtype
  if dtype == jnp.float16 and compute.on_cpu():
    query, keys, values = (a.astype(jnp.float32) for a in (query, keys, values))
  y = jax.nn.dot_product_attention(query, keys, values, **options)
  return y.astype(dtype)


class Attention(nn.Module):
  """Grouped-query attention, to itself or to a memory.

  The projections ``query``, ``key``, ``value`` and ``out`` are quantized by
  their recipes; what they share as input is quantized once. Products of
  queries, keys and values stay in float.

  Attributes:
    num_heads: heads of the queries.
    num_kv_heads: heads of keys and values; divides ``num_heads``.
    head_dim: features of a head.
    rotary_base: of rotary positions; ``None`` for no positions here.
    use_bias: whether the projections have biases.
    norm: makes the norm in front of ``out``, from its name; ``None`` for none.
    dtype: of the activations.
    param_dtype: of the latent weights.
    kernel_init: of the projections.
    partition: names the axes of a kernel for sharding, as
      ``nn.with_logical_partitioning`` does.
    recipe: rules on the paths of the projections, or one recipe.
  """

  num_heads: int
  num_kv_heads: int
  head_dim: int
  rotary_base: float | None = None
  use_bias: bool = False
  norm: Callable[[str], nn.Module] | None = None
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: nn.initializers.Initializer = default_kernel_init
  partition: Callable[..., Any] = no_partitioning
  recipe: Rules = "b158"

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t d"],
    memory: Float[Array, "b s d_memory"] | None = None,
    *,
    mask: Bool[Array, "b 1 #t s_all"] | None = None,
    is_causal: bool = False,
    positions: Int[Array, "b t"] | None = None,
    cache: AttentionCache | None = None,
    index: ArrayLike | None = None,
    strength: ArrayLike | None = None,
  ) -> tuple[Float[Array, "b t d"], AttentionCache | None]:
    """Attends.

    Args:
      x: what asks.
      memory: what is attended to; by default ``x``, or with a cache and no
        index the memory of an earlier call.
      mask: which keys each query sees, see ``make_mask``.
      is_causal: whether each query sees the keys up to its own place only.
      positions: of ``x``, for rotary positions; by default 0, 1, ...
      cache: of earlier calls, or with room for this one.
      index: place in the cache of the first token of ``x``; ``None`` for a
        memory, which is kept whole.
      strength: share of quantization in force, see ``BitDense``.

    Returns:
      The output, and the cache after this call.
    """
    b, t, d = x.shape
    remembers = cache is not None and index is None and memory is None
    names = ("query",) if remembers or memory is not None else _PROJECTIONS
    shared = share_input(self, x, names, self.recipe, strength)
    query = self._project("query", shared, self.num_heads, strength)
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(t), (b, t))
    if self.rotary_base is not None:
      query = rotate(query, positions, base=self.rotary_base)
    if remembers:
      keys, values = cache.keys, cache.values
    else:
      if memory is not None:
        shared = share_input(
          self, memory, _PROJECTIONS[1:], self.recipe, strength
        )
      keys = self._project("key", shared, self.num_kv_heads, strength)
      values = self._project("value", shared, self.num_kv_heads, strength)
      if self.rotary_base is not None:
        keys = rotate(keys, positions, base=self.rotary_base)
    if cache is not None:
      if index is not None:
        zero = jnp.zeros_like(index)  # Places are all of one dtype.
        place = (zero, index, zero, zero)
        keys, values = (
          jax.lax.dynamic_update_slice(old, new.astype(old.dtype), place)
          for old, new in ((cache.keys, keys), (cache.values, values))
        )
      cache = AttentionCache(keys, values)
    y = attend(
      query,
      keys.astype(query.dtype),
      values.astype(query.dtype),
      mask=mask,
      is_causal=is_causal,
    )
    y = y.reshape(b, t, -1)
    if self.norm is not None:
      y = self.norm("sub_norm")(y)
    out = make_dense(self, "out", d, ("heads", "embed"))
    return out(y, strength=strength), cache

  def _project(self, name, x, heads, strength):
    axes = ("embed", "heads" if name == "query" else "kv_heads")
    dense = make_dense(self, name, heads * self.head_dim, axes)
    y = dense(x, strength=strength)
    return y.reshape(*y.shape[:-1], heads, self.head_dim)
