"""Continuing text with a causal language model."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.inference.sampling import Sampling
from bitnet_jax.layers import bit_layers
from bitnet_jax.layers.introspection import quantize_kernels, with_codes
from bitnet_jax.models.cache import make_cache
from bitnet_jax.models.decoder import Decoder

_FILLING = 0  # Any id will do: filling is at position -1, which nobody sees.


def generate(
  model: Decoder,
  variables: Mapping[str, Any],
  prompts: Sequence[Sequence[int]],
  *,
  max_new_tokens: int,
  sampling: Sampling | None = None,
  stop_id: int | None = None,
  seed: int = 0,
) -> list[list[int]]:
  """Continues prompts, all at once, with a cache.

  Kernels are quantized once. A program is compiled for each number and longest
  length of the prompts.

  Args:
    model: the model.
    variables: its parameters, ``{"params": ...}``.
    prompts: ids, at least one each; lengths may differ.
    max_new_tokens: where to stop at the latest.
    sampling: how tokens are chosen; by default always the likeliest.
    stop_id: ends a text; it is not part of the result. ``None`` for none.
    seed: of the sampling.

  Returns:
    The ids that follow each prompt, without it.

  Raises:
    ValueError: for no or empty prompts, ids that are not in the vocabulary, or
      more tokens than the model has positions for.
  """
  _check_prompts(prompts, model.cfg.vocab_size)
  if max_new_tokens < 1:
    raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be >= 1")
  longest = max(map(len, prompts))
  if longest + max_new_tokens > model.cfg.max_length:
    raise ValueError(
      f"the longest prompt has {longest} tokens; with max_new_tokens"
      f" {max_new_tokens} that is more than model.max_length,"
      f" {model.cfg.max_length}"
    )
  tokens = np.full((len(prompts), longest), _FILLING, np.int32)
  positions = np.full((len(prompts), longest), -1, np.int32)
  for row, prompt in enumerate(prompts):
    tokens[row, longest - len(prompt) :] = prompt
    positions[row, longest - len(prompt) :] = np.arange(len(prompt))
  written, lengths = _generate(
    model,
    dict(variables),
    tokens,
    positions,
    jax.random.key(seed),
    max_new_tokens=max_new_tokens,
    sampling=sampling or Sampling(),
    stop_id=-1 if stop_id is None else stop_id,
  )
  rows = zip(np.asarray(written), np.asarray(lengths), strict=True)
  return [row[:length].tolist() for row, length in rows]


def quantize_once(
  model: Any, variables: Mapping[str, Any], *example: Any
) -> dict[str, Any]:
  """Returns variables whose kernels are codes, rounded here and not again.

  Args:
    model: any model with layers of this package.
    variables: its parameters.
    *example: inputs of a call, or their shapes.
  """
  codes = quantize_kernels(bit_layers(model, *example), variables["params"])
  return {**variables, "params": with_codes(variables["params"], codes)}


@functools.partial(
  jax.jit, static_argnames=("model", "max_new_tokens", "sampling", "stop_id")
)
def _generate(
  model, variables, tokens, positions, key, *, max_new_tokens, sampling, stop_id
):
  """Returns what is written, [b, max_new_tokens], and how much of it counts."""
  b, longest = tokens.shape
  variables = quantize_once(model, variables, tokens)
  cache = make_cache(model.cfg, batch=b, length=longest + max_new_tokens)
  decode = functools.partial(model.apply, variables, method="decode")
  logits, cache = decode(tokens, positions, cache)

  def choose(i, logits):
    return sampling(logits[:, -1], jax.random.fold_in(key, i))

  def is_going_on(state):
    i, *_, done = state
    return (i < max_new_tokens) & ~jnp.all(done)

  def write(state):
    i, logits, cache, written, lengths, done = state
    token = choose(i, logits)
    done = done | (token == stop_id)
    written = written.at[:, i].set(token)
    lengths = lengths + ~done
    following = positions[:, -1:] + 1 + i
    logits, cache = decode(token[:, None], following, cache)
    return i + 1, logits[:, -1:], cache, written, lengths, done

  state = (
    jnp.int32(0),
    logits[:, -1:],
    cache,
    jnp.zeros((b, max_new_tokens), jnp.int32),
    jnp.zeros(b, jnp.int32),
    jnp.zeros(b, bool),
  )
  *_, written, lengths, _ = jax.lax.while_loop(is_going_on, write, state)
  return written, lengths


def _check_prompts(prompts, vocab_size):
  if not prompts:
    raise ValueError("there are no prompts")
  for number, prompt in enumerate(prompts):
    if not len(prompt):
      raise ValueError(f"prompt {number} is empty; it must hold a token")
    for token in prompt:
      if not 0 <= token < vocab_size:
        raise ValueError(
          f"prompt {number} holds the id {token}; ids must be in"
          f" 0..{vocab_size - 1} (vocab_size={vocab_size})"
        )
