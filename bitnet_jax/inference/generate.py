"""Continuing text with a causal language model."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.inference.sampling import Sampling
from bitnet_jax.layers import bit_layers
from bitnet_jax.layers.introspection import quantize_kernels, replace_kernels
from bitnet_jax.models.cache import Cache, make_cache
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
    variables: its parameters, ``{"params": ...}``, frozen or not.
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
  tokens, positions = _place(model, prompts, max_new_tokens)
  written, lengths = _generate(
    model,
    dict(variables),
    tokens,
    positions,
    jax.random.key(seed),
    max_new_tokens=max_new_tokens,
    choosing=_Choosing(sampling or Sampling(), stop_id),
  )
  rows = zip(np.asarray(written), np.asarray(lengths), strict=True)
  return [row[:length].tolist() for row, length in rows]


def stream(
  model: Decoder,
  variables: Mapping[str, Any],
  prompts: Sequence[Sequence[int]],
  *,
  max_new_tokens: int,
  sampling: Sampling | None = None,
  stop_id: int | None = None,
  seed: int = 0,
) -> Iterator[list[int | None]]:
  """Continues prompts as ``generate`` does, and yields tokens as they come.

  Args:
    model: see ``generate``, like the rest.
    variables: see ``generate``.
    prompts: see ``generate``.
    max_new_tokens: see ``generate``.
    sampling: see ``generate``.
    stop_id: see ``generate``.
    seed: see ``generate``.

  Yields:
    One token for each prompt; ``None`` where its text has ended.
  """
  tokens, positions = _place(model, prompts, max_new_tokens)
  choosing = _Choosing(sampling or Sampling(), stop_id)
  variables, state = _begin_compiled(
    model, dict(variables), tokens, positions, max_new_tokens
  )
  key = jax.random.key(seed)
  for _ in range(max_new_tokens):
    token, state = _next_compiled(model, choosing, variables, state, key)
    # Fetched together: a token, and whether it still counts.
    found, done = jax.device_get((token, state.done))
    if done.all():
      return
    yield [None if d else int(t) for t, d in zip(found, done, strict=True)]


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
  return {**variables, "params": replace_kernels(variables["params"], codes)}


@dataclasses.dataclass(frozen=True)
class _Choosing:
  """How tokens are chosen, and which ends a text."""

  sampling: Sampling
  stop_id: int | None


class _State(flax.struct.PyTreeNode):
  """What there is between two tokens.

  Attributes:
    index: how many tokens are written, int32 scalar.
    position: of the next token of each text, [b, 1].
    logits: of the next token, [b, v].
    cache: of the decoder.
    done: which texts have ended, [b].
  """

  index: jax.Array
  position: jax.Array
  logits: jax.Array
  cache: Cache
  done: jax.Array


def _begin(model, variables, tokens, positions, max_new_tokens):
  """Reads the prompts; returns variables with codes, too."""
  b, longest = tokens.shape
  variables = quantize_once(model, variables, tokens)
  cache = make_cache(model.cfg, batch=b, length=longest + max_new_tokens)
  logits, cache = model.apply(
    variables, tokens, positions, cache, method="decode"
  )
  state = _State(
    index=jnp.int32(0),
    position=positions[:, -1:] + 1,
    logits=logits[:, -1],
    cache=cache,
    done=jnp.zeros(b, bool),
  )
  return variables, state


def _next(model, choosing, variables, state, key):
  """Writes one token of each text."""
  key = jax.random.fold_in(key, state.index)
  token = choosing.sampling(state.logits, key)
  done = state.done
  if choosing.stop_id is not None:
    done = done | (token == choosing.stop_id)
  logits, cache = model.apply(
    variables, token[:, None], state.position, state.cache, method="decode"
  )
  return token, _State(
    index=state.index + 1,
    position=state.position + 1,
    logits=logits[:, -1],
    cache=cache,
    done=done,
  )


_begin_compiled = jax.jit(_begin, static_argnums=(0, 4))
_next_compiled = jax.jit(_next, static_argnums=(0, 1), donate_argnums=3)


@functools.partial(
  jax.jit, static_argnames=("model", "max_new_tokens", "choosing")
)
def _generate(
  model, variables, tokens, positions, key, *, max_new_tokens, choosing
):
  """Returns what is written, [b, max_new_tokens], and how much of it counts."""
  variables, state = _begin(model, variables, tokens, positions, max_new_tokens)

  def is_going_on(carry):
    state, *_ = carry
    return (state.index < max_new_tokens) & ~jnp.all(state.done)

  def write(carry):
    state, written, lengths = carry
    token, following = _next(model, choosing, variables, state, key)
    written = written.at[:, state.index].set(token)
    return following, written, lengths + ~following.done

  b = len(tokens)
  empty = jnp.zeros((b, max_new_tokens), jnp.int32)
  carry = state, empty, jnp.zeros(b, jnp.int32)
  _, written, lengths = jax.lax.while_loop(is_going_on, write, carry)
  return written, lengths


def _place(model, prompts, max_new_tokens):
  """Returns tokens and positions of prompts, [b, longest], filled in front."""
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
  return tokens, positions


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
