"""Multi-head attention with ternary projections."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from bitnet_jax.layers.projections import Projections
from bitnet_jax.ops import compute, lowering

_PROJECTIONS = ("query", "key", "value")
# Blocks of queries in causal attention of that many tokens or more.
_BLOCKS, _LONG = 4, 256


@flax.struct.dataclass
class AttentionCache:
  """Keys and values of the attentions of a stack, for the tokens so far.

  A stack, so that a layer writes its own in place.

  Attributes:
    keys: [layers, b, kv_heads, s, k], rotated.
    values: [layers, b, kv_heads, s, k].
  """

  keys: jax.Array
  values: jax.Array

  def written(
    self,
    layer: ArrayLike,
    index: ArrayLike,
    keys: Float[Array, "b t kv_heads k"],
    values: Float[Array, "b t kv_heads k"],
  ) -> "AttentionCache":
    """Returns the cache with those of a layer from the place ``index`` on."""
    zero = jnp.int32(0)  # All parts of a place have one dtype.
    place = (jnp.int32(layer), zero, zero, jnp.int32(index), zero)

    def write(stack, new):
      new = jnp.swapaxes(new, 1, 2).astype(stack.dtype)
      return jax.lax.dynamic_update_slice(stack, new[None], place)

    return AttentionCache(write(self.keys, keys), write(self.values, values))

  def read(
    self, layer: ArrayLike
  ) -> tuple[Float[Array, "b s kv_heads k"], Float[Array, "b s kv_heads k"]]:
    """Returns keys and values of a layer."""

    def take(stack):
      own = jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)
      return jnp.swapaxes(own, 1, 2)

    return take(self.keys), take(self.values)

  def attend(
    self,
    layer: ArrayLike,
    query: Float[Array, "b 1 h k"],
    mask: Bool[Array, "b 1 1 s"] | None,
  ) -> Float[Array, "b 1 h k"]:
    """Returns attention of one query for each head to what a layer cached."""
    _, b, kv_heads, s, k = self.keys.shape
    grouped = query.reshape(b, kv_heads, -1, k)
    seen = jnp.ones((b, s), bool) if mask is None else mask.reshape(b, s)
    layer = jnp.asarray(layer, jnp.int32)
    y = lowering.ATTEND_CACHED(grouped, self.keys, self.values, layer, seen)
    return y.reshape(query.shape)


def rotate(
  x: Float[Array, "b t h k"], positions: Int[Array, "b t"], *, base: float
) -> Float[Array, "b t h k"]:
  """Applies rotary position embedding (RoFormer, 2104.09864).

  The first half of a head's features is paired with the second half, as in
  Llama. Angles are computed in float32.

  Args:
    x: queries or keys; ``k`` is even.
    positions: positions of the tokens.
    base: of the geometric series of wavelengths.
  """
  half = x.shape[-1] // 2
  frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
  angles = jnp.multiply.outer(positions.astype(jnp.float32), frequencies)
  angles = angles[:, :, None]  # The same for all heads.
  # Without a barrier, compilers compute them again for each head.
  cos, sin = jax.lax.optimization_barrier((jnp.cos(angles), jnp.sin(angles)))
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def make_mask(
  *,
  positions: tuple[Int[Array, "b t"], Int[Array, "b s"]] | None = None,
  segments: tuple[Int[Array, "b t"], Int[Array, "b s"]] | None = None,
) -> Bool[Array, "b 1 t s"] | None:
  """Returns an attention mask, true where a query sees a key.

  Args:
    positions: of queries and keys, for causal attention: a query sees the keys
      up to its own position, and none at a negative one. ``None`` for
      bidirectional attention.
    segments: of queries and keys: a query sees the keys of its own segment;
      0 marks padding, which is masked. ``None`` for one segment.

  Returns:
    The mask; ``None`` if nothing is masked.
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
  the keys up to its end. That skips 3/8 of the work, all of it masked.

  Args:
    query: queries; ``h`` is a multiple of ``kv_heads``.
    keys: one for each value.
    values: values.
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
  """Calls ``jax.nn.dot_product_attention``, in float16, too.

  XLA's CPU backend does not support the float16 product that JAX uses.
  """
  dtype = query.dtype
  if dtype == jnp.float16 and compute.on_cpu():
    query, keys, values = (a.astype(jnp.float32) for a in (query, keys, values))
  y = jax.nn.dot_product_attention(query, keys, values, **options)
  return y.astype(dtype)


class Attention(Projections):
  """Grouped-query attention, to itself or to a memory.

  The projections ``query``, ``key``, ``value`` and ``out`` are quantized by
  their recipes; a shared input is quantized once. Products of queries, keys and
  values stay in float. An optional norm precedes ``out``.

  Attributes:
    num_heads: heads of the queries.
    num_kv_heads: heads of keys and values; divides ``num_heads``.
    head_dim: features of a head.
    rotary_base: base of rotary positions; ``None`` for no positions here.
    use_bias: whether the projections have biases.
    norm: makes the norm from its name; ``None`` for no norm.
    dtype: dtype of the activations.
    param_dtype: dtype of the latent weights.
    kernel_init: initializer of the kernels.
    partition: names the axes of a kernel for sharding, as
      ``nn.with_logical_partitioning`` does.
    recipe: rules on the paths of the projections, or one recipe.
  """

  num_heads: int
  num_kv_heads: int
  head_dim: int
  rotary_base: float | None = None

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
    layer: ArrayLike = 0,
    index: ArrayLike | None = None,
    strength: ArrayLike | None = None,
  ) -> tuple[Float[Array, "b t d"], AttentionCache | None]:
    """Returns the output, and the cache after this call.

    Args:
      x: input of the queries.
      memory: input of keys and values; by default ``x``, or with a cache and
        no index the memory of an earlier call.
      mask: which keys each query sees; made by ``make_mask``.
      is_causal: whether each query sees the keys up to its own place only.
      positions: positions of ``x``, for rotary positions; by default 0, 1, ...
      cache: cache of earlier calls, or with room for this one.
      layer: number of this attention in the cache.
      index: place in the cache of the first token of ``x``; ``None`` for a
        memory, which is cached whole.
      strength: fraction of quantization, in [0, 1]; ``None`` for all of it.
    """
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    in_cache = cache is not None and index is None and memory is None
    names = ("query",) if in_cache or memory is not None else _PROJECTIONS
    query, *rest = self._project(names, x, positions, strength)
    if memory is not None:
      rest = self._project(_PROJECTIONS[1:], memory, positions, strength)
    if cache is not None and not in_cache:
      cache = cache.written(layer, 0 if index is None else index, *rest)
    if cache is not None and x.shape[1] == 1:
      y = cache.attend(layer, query, mask)
    else:
      if cache is not None and (in_cache or index is not None):
        rest = cache.read(layer)
      keys, values = (a.astype(query.dtype) for a in rest)
      y = attend(query, keys, values, mask=mask, is_causal=is_causal)
    y = y.reshape(*y.shape[:2], -1)
    axes = ("heads", "embed")
    y = self.project_output("out", y, x.shape[-1], axes, strength)
    return y, cache

  def _project(self, names, x, positions, strength):
    """Returns heads of the named projections; queries and keys are rotated."""

    def make(name):
      is_query = name == "query"
      heads = self.num_heads if is_query else self.num_kv_heads
      axes = ("embed", "heads" if is_query else "kv_heads")
      return self.dense(name, heads * self.head_dim, axes)

    layers = [make(name) for name in names]
    shared = self.share_input(x, layers, strength)
    found = []
    for name, layer in zip(names, layers, strict=True):
      y = layer(shared, strength=strength)
      heads = layer.features // self.head_dim
      y = y.reshape(*y.shape[:-1], heads, self.head_dim)
      if self.rotary_base is not None and name != "value":
        y = rotate(y, positions, base=self.rotary_base)
      found.append(y)
    return found
