"""Attention of one query for each head to cached keys, as XLA computes it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


def attend_cached(
  query: Float[Array, "b kv_heads groups k"],
  keys: Float[Array, "layers b kv_heads s k"],
  values: Float[Array, "layers b kv_heads s k"],
  layer: Int32[Array, ""],
  mask: Bool[Array, "b s"],
) -> Float[Array, "b kv_heads groups k"]:
  """Returns ``softmax(query . keys / sqrt(k)) . values``.

  The softmax is in float32. A query that sees no key averages all values.

  Args:
    query: one of each head; ``groups`` heads share keys and values.
    keys: of all layers.
    values: likewise.
    layer: number of the layer.
    mask: which keys are seen.
  """
  dtype = query.dtype
  if dtype == jnp.float16:  # XLA's CPU backend has no such product.
    query = query.astype(jnp.float32)
  take = jax.lax.dynamic_index_in_dim
  keys, values = (
    take(a, layer, keepdims=False).astype(query.dtype) for a in (keys, values)
  )
  in_float32 = {"preferred_element_type": jnp.float32}
  scores = jnp.einsum("bngk,bnsk->bngs", query, keys, **in_float32)
  scores *= query.shape[-1] ** -0.5
  lowest = -0.7 * jnp.finfo(jnp.float32).max
  scores = jnp.where(mask[:, None, None], scores, lowest)
  weights = jax.nn.softmax(scores).astype(values.dtype)
  y = jnp.einsum("bngs,bnsk->bngk", weights, values, **in_float32)
  return y.astype(dtype)
