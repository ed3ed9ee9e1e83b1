"""Text generation with a causal language model."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.inference.prompts import (
  Prompts,
  allowed_ids,
  check_ids,
  check_prompts,
  unboxed,
)
from bitnet_jax.inference.sampling import NO_TOKEN, Sampling
from bitnet_jax.layers import bit_layers
from bitnet_jax.layers.dense import STACKS
from bitnet_jax.layers.introspection import quantize_kernels, replace_kernels
from bitnet_jax.models.cache import Cache, make_cache
from bitnet_jax.models.decoder import Decoder
from bitnet_jax.quantizers.recipe import check_causal
from bitnet_jax.types import Packed, QTensor

_PADDING = 0  # Any id: padding is at position -1, and is masked.


def generate(
  model: Decoder,
  variables: Mapping[str, Any],
  prompts: Prompts,
  *,
  max_new_tokens: int,
  sampling: Sampling | None = None,
  stop_id: int | Sequence[int] | None = None,
  banned: Sequence[int] | np.ndarray = (),
  seed: int = 0,
) -> list[list[int]]:
  """Generates text after prompts, as one batch, with a key-value cache.

  Kernels are quantized once. A program is compiled for each number and longest
  length of the prompts.

  Args:
    model: the model.
    variables: its parameters, ``{"params": ...}``, frozen or not.
    prompts: rows of ids, sequences or an array, at least one id each; lengths
      may differ.
    max_new_tokens: where to stop at the latest.
    sampling: how tokens are chosen; by default always the likeliest.
    stop_id: id, or ids, that end a text; not part of the result.
    banned: ids that are never generated, such as those of a model that its
      vocabulary does not have: ``Tokenizer.unused_ids``.
    seed: seed of the sampling.

  Returns:
    The ids that follow each prompt, without it.

  Raises:
    FloatingPointError: if logits are NaN or infinite.
    ValueError: for prompts that are not rows of ids in the vocabulary, or for
      more tokens than the model has positions for.

  Example:
    >>> import jax
    >>> from bitnet_jax.models.decoder import Decoder, DecoderConfig
    >>> sizes = dict(hidden=32, num_layers=1, num_heads=2, num_kv_heads=2)
    >>> cfg = DecoderConfig(
    ...   **sizes, mlp_width=32, max_length=16, vocab_size=50
    ... )
    >>> model = Decoder(cfg, (("head", "float"), (".*", "b158")))
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 4), int))
    >>> from bitnet_jax.inference import Sampling, generate
    >>> found = generate(
    ...   model,
    ...   variables,
    ...   [[3, 7], [5]],
    ...   max_new_tokens=4,
    ...   sampling=Sampling(temperature=0.8, top_p=0.95),
    ... )
    >>> [len(ids) for ids in found]
    [4, 4]
  """
  variables, tokens, positions = _place(
    model, variables, prompts, max_new_tokens
  )
  allowed = _allowed(model, stop_id, banned)
  written, lengths = jax.device_get(
    _generate(
      model,
      variables,
      tokens,
      positions,
      jax.random.key(seed),
      allowed,
      max_new_tokens=max_new_tokens,
      sampling=sampling or Sampling(),
    )
  )
  failed = np.argwhere(written == NO_TOKEN)
  if len(failed):
    raise _no_numbers(*failed[0])
  rows = zip(written, lengths, strict=True)
  return [row[:length].tolist() for row, length in rows]


def _no_numbers(row, number) -> FloatingPointError:
  return FloatingPointError(
    f"prompt {row}, new token {number}: the logits are NaN or infinite, so that"
    " none can be chosen; look for such values in the variables of the model"
  )


def stream(
  model: Decoder,
  variables: Mapping[str, Any],
  prompts: Prompts,
  *,
  max_new_tokens: int,
  sampling: Sampling | None = None,
  stop_id: int | Sequence[int] | None = None,
  banned: Sequence[int] | np.ndarray = (),
  seed: int = 0,
) -> Iterator[list[int | None]]:
  """Generates text as ``generate`` does, and yields tokens as they come.

  Args:
    model: the model.
    variables: its parameters, ``{"params": ...}``, frozen or not.
    prompts: rows of ids, at least one id each.
    max_new_tokens: where to stop at the latest.
    sampling: how tokens are chosen; by default always the likeliest.
    stop_id: id, or ids, that end a text; never yielded.
    banned: ids that are never generated.
    seed: seed of the sampling.

  Yields:
    One token for each prompt; ``None`` where its text has ended.

  Raises:
    FloatingPointError: if logits are NaN or infinite.
    ValueError: for prompts, ids or a length that do not suit the model.

  Example:
    >>> import jax
    >>> from bitnet_jax.models.decoder import Decoder, DecoderConfig
    >>> sizes = dict(hidden=32, num_layers=1, num_heads=2, num_kv_heads=2)
    >>> cfg = DecoderConfig(
    ...   **sizes, mlp_width=32, max_length=16, vocab_size=50
    ... )
    >>> model = Decoder(cfg, (("head", "float"), (".*", "b158")))
    >>> variables = model.init(jax.random.key(0), jax.numpy.zeros((1, 4), int))
    >>> from bitnet_jax.inference import stream
    >>> steps = list(stream(model, variables, [[3, 7]], max_new_tokens=4))
    >>> len(steps), len(steps[0])
    (4, 1)
  """
  variables, tokens, positions = _place(
    model, variables, prompts, max_new_tokens
  )
  allowed, sampling = _allowed(model, stop_id, banned), sampling or Sampling()
  variables, state = _begin_compiled(
    model, variables, tokens, positions, max_new_tokens
  )
  key = jax.random.key(seed)
  for number in range(max_new_tokens):
    token, state = _next_compiled(
      model, sampling, variables, state, key, allowed
    )
    # Fetched together: a token, and whether it still counts.
    found, done = jax.device_get((token, state.done))
    failed = np.flatnonzero(found == NO_TOKEN)
    if len(failed):
      raise _no_numbers(failed[0], number)
    if done.all():
      return
    yield [None if d else int(t) for t, d in zip(found, done, strict=True)]


def quantize_once(
  model: Any, variables: Mapping[str, Any], *example: Any
) -> dict[str, Any]:
  """Returns variables with quantized kernels, so that no step quantizes them.

  Packed kernels of scanned blocks become the collection ``STACKS``.

  Args:
    model: a transformer.
    variables: its parameters.
    *example: inputs of a call, or their shapes.
  """
  variables = unboxed(variables)
  layers = bit_layers(model, *example)
  codes = quantize_kernels(layers, variables["params"], training=False)
  params = replace_kernels(variables["params"], codes)
  stacks, numbers = {}, {}
  for layer in layers:
    q = layer.kernel(params)
    if not isinstance(q, QTensor) or not isinstance(q.qvalue, Packed):
      continue
    if layer.stack_axes:
      stacks[layer.path] = q.qvalue
      numbers[layer.path] = QTensor(jnp.arange(q.shape[0]), q.scale)
  params = replace_kernels(params, numbers)
  return {**variables, "params": params, STACKS: replace_kernels({}, stacks)}


class _Allowed(NamedTuple):
  """Which tokens may be generated, and which end a text.

  Attributes:
    may: bool [v].
    stops: bool [v].
  """

  may: jax.Array
  stops: jax.Array


def _allowed(model, stop_id, banned):
  vocab_size = model.cfg.vocab_size
  stop_ids = check_ids("stop_id", stop_id, vocab_size)
  may = allowed_ids(banned, stop_ids, vocab_size)
  stops = np.isin(np.arange(vocab_size), stop_ids)
  return _Allowed(jnp.asarray(may), jnp.asarray(stops))


class _State(flax.struct.PyTreeNode):
  """State between two tokens.

  Attributes:
    index: number of tokens generated, int32 scalar.
    position: of the next token of each text, [b, 1].
    logits: logits of the next token, [b, v].
    cache: cache of the decoder.
    done: which texts have ended, [b].
  """

  index: jax.Array
  position: jax.Array
  logits: jax.Array
  cache: Cache
  done: jax.Array


def _begin(model, variables, tokens, positions, max_new_tokens):
  """Runs the prompts; returns variables with codes, and the state after."""
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


def _next(model, sampling, variables, state, key, allowed):
  """Chooses one token of each text; returns it and the state after."""
  key = jax.random.fold_in(key, state.index)
  logits = jnp.where(allowed.may[None], state.logits, -jnp.inf)
  token = sampling(logits, key)
  fed = jnp.maximum(token, 0)
  # Tokens after the end of a text are dropped, so they cannot fail.
  token = jnp.where(state.done, fed, token)
  done = state.done | allowed.stops[fed] | (token == NO_TOKEN)
  logits, cache = model.apply(
    variables, fed[:, None], state.position, state.cache, method="decode"
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
  jax.jit, static_argnames=("model", "max_new_tokens", "sampling")
)
def _generate(
  model, variables, tokens, positions, key, allowed, *, max_new_tokens, sampling
):
  """Returns tokens [b, max_new_tokens], and how many of each row count."""
  variables, state = _begin(model, variables, tokens, positions, max_new_tokens)

  def is_going_on(carry):
    state, *_ = carry
    return (state.index < max_new_tokens) & ~jnp.all(state.done)

  def write(carry):
    state, written, lengths = carry
    token, following = _next(model, sampling, variables, state, key, allowed)
    written = written.at[:, state.index].set(token)
    return following, written, lengths + jnp.int32(~following.done)

  b = len(tokens)
  empty = jnp.zeros((b, max_new_tokens), jnp.int32)
  carry = state, empty, jnp.zeros(b, jnp.int32)
  _, written, lengths = jax.lax.while_loop(is_going_on, write, carry)
  return written, lengths


def _place(model, variables, prompts, max_new_tokens):
  """Returns variables, and tokens and positions of the prompts.

  Both are [b, longest], padded in front.
  """
  check_causal(model.recipe)
  rows = check_prompts(prompts, model.cfg.vocab_size)
  if not isinstance(max_new_tokens, (int, np.integer)) or max_new_tokens < 1:
    raise ValueError(
      f"max_new_tokens is {max_new_tokens}; it must be a whole number >= 1"
    )
  longest = max(map(len, rows))
  if longest + max_new_tokens > model.cfg.max_length:
    raise ValueError(
      f"the longest prompt has {longest} tokens; with max_new_tokens"
      f" {max_new_tokens} that is more than model.max_length,"
      f" {model.cfg.max_length}"
    )
  tokens = np.full((len(rows), longest), _PADDING, np.int32)
  positions = np.full((len(rows), longest), -1, np.int32)
  for number, row in enumerate(rows):
    tokens[number, longest - len(row) :] = row
    positions[number, longest - len(row) :] = np.arange(len(row))
  return unboxed(variables), tokens, positions
