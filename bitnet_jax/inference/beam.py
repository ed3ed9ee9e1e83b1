"""Greedy and beam search with an encoder-decoder."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from bitnet_jax.inference.generate import quantize_once
from bitnet_jax.inference.prompts import (
  allowed_ids,
  check_ids,
  check_integers,
  check_range,
  unboxed,
)
from bitnet_jax.inference.sampling import NO_TOKEN, is_distribution
from bitnet_jax.models.cache import Cache, make_cache
from bitnet_jax.models.encoder_decoder import EncoderDecoder
from bitnet_jax.quantizers.recipe import check_causal


def beam_search(
  model: EncoderDecoder,
  variables: Mapping[str, Any],
  inputs: Int[Array | np.ndarray, "b s"],
  input_mask: Int[Array | np.ndarray, "b s"],
  *,
  start_id: int,
  stop_id: int,
  max_length: int,
  num_beams: int = 1,
  length_penalty: float = 1.0,
  banned: Sequence[int] | np.ndarray = (),
) -> Int[Array, "b t"]:
  """Generates outputs by beam search, or greedy search with one beam.

  Kernels are quantized once.

  Args:
    model: the model.
    variables: its parameters, ``{"params": ...}``.
    inputs: ids.
    input_mask: 1 for inputs, 0 for padding.
    start_id: what the decoder starts with.
    stop_id: ends an output.
    max_length: where to stop at the latest, in tokens.
    num_beams: hypotheses of each output.
    length_penalty: at the end the log-probability of each output is divided by
      its length to this power; the largest wins.
    banned: ids that are never generated.

  Returns:
    Ids without the start, ``stop_id`` from the end of each output on;
    t = ``max_length``. Within ``jax.jit``, ``NO_TOKEN`` in rows where an error
    could not be raised.

  Raises:
    FloatingPointError: if logits are NaN or infinite.
    ValueError: for a number that is not positive, inputs that are no ids, or
      more tokens than the model has positions for.

  Example:
    >>> import jax
    >>> from bitnet_jax.inference import beam_search
    >>> from bitnet_jax.models.encoder_decoder import (
    ...   EncoderDecoder,
    ...   EncoderDecoderConfig,
    ... )
    >>> sizes = dict(hidden=32, num_layers=1, num_heads=2, num_kv_heads=2)
    >>> cfg = EncoderDecoderConfig(
    ...   **sizes,
    ...   num_decoder_layers=1,
    ...   mlp_width=32,
    ...   max_length=16,
    ...   vocab_size=50,
    ... )
    >>> model = EncoderDecoder(cfg, (("head", "float"), (".*", "b158")))
    >>> ids = jax.numpy.array([[3, 7, 1]])
    >>> variables = model.init(jax.random.key(0), ids, ids)
    >>> options = dict(start_id=0, stop_id=1, max_length=5, num_beams=2)
    >>> beam_search(model, variables, ids, ids > 0, **options).shape
    (1, 5)
  """
  check_causal(model.recipe)
  variables, vocab_size = unboxed(variables), model.cfg.vocab_size
  inputs, input_mask = _check_inputs(model.cfg, inputs, input_mask)
  allowed = allowed_ids(banned, (stop_id,), vocab_size)
  options = _Options(
    start_id=start_id,
    stop_id=stop_id,
    max_length=max_length,
    num_beams=num_beams,
    length_penalty=length_penalty,
  )
  options.check(vocab_size, int(allowed.sum()))
  outputs = _search(
    model, options, variables, inputs, input_mask, jnp.asarray(allowed)
  )
  _check_outputs(outputs)
  return outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
  """Arguments of ``beam_search`` that its program is compiled for."""

  start_id: int
  stop_id: int
  max_length: int
  num_beams: int
  length_penalty: float

  def check(self, vocab_size: int, num_allowed: int) -> None:
    """Raises a ValueError that names an argument and its value."""
    for name in ("start_id", "stop_id"):
      value = getattr(self, name)
      if len(check_ids(name, value, vocab_size)) != 1:
        raise ValueError(f"{name} is {value}; it must be one id")
    for name in ("num_beams", "max_length"):
      value = getattr(self, name)
      if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1, and whole")
    if self.num_beams > num_allowed:
      raise ValueError(
        f"num_beams is {self.num_beams}, more than the {num_allowed} tokens"
      )
    # Scores are divided by this.
    largest = abs(self.length_penalty) * math.log2(1 + self.max_length)
    if not largest < jnp.finfo(jnp.float32).maxexp - 1:
      raise ValueError(
        f"length_penalty is {self.length_penalty}; a length of"
        f" {self.max_length} to this power must be finite"
      )


def _check_inputs(cfg, inputs, input_mask):
  """Returns both as int32 arrays."""
  read = {"inputs": inputs, "input_mask": input_mask}
  for name, value in read.items():
    array = value if hasattr(value, "dtype") else np.asarray(value)
    if array.ndim != 2 or not array.shape[1]:
      raise ValueError(
        f"{name} has the shape {[*array.shape]}; it must be [b, s] with at"
        " least one id a row"
      )
    if array.dtype != bool or name == "inputs":
      check_integers(name, array)
    read[name] = jnp.asarray(array)
  inputs, input_mask = read.values()
  if inputs.shape != input_mask.shape:
    raise ValueError(
      f"input_mask has the shape {[*input_mask.shape]}, not that of inputs,"
      f" {[*inputs.shape]}"
    )
  if _is_here(inputs):
    check_range("inputs", inputs, cfg.vocab_size)
  return inputs.astype(jnp.int32), input_mask.astype(jnp.int32)


def _check_outputs(outputs):
  """Raises a FloatingPointError for a row that has failed."""
  if _is_here(outputs):
    failed = np.flatnonzero(np.any(np.asarray(outputs) == NO_TOKEN, axis=1))
    if len(failed):
      raise FloatingPointError(
        f"row {failed[0]}: the logits are NaN or infinite, so that no output"
        " can be chosen; look for such values in the variables of the model"
      )


def _is_here(array) -> bool:
  """Whether this process has all values of an array."""
  return not isinstance(array, jax.core.Tracer) and (
    array.is_fully_addressable or array.is_fully_replicated
  )


class _Beams(NamedTuple):
  """State of a search with k hypotheses for each of b outputs.

  Attributes:
    index: number of tokens generated, int32 scalar.
    logits: logits of the next token, [b * k, t, v].
    cache: cache of the decoder, for b * k sequences.
    tokens: of the hypotheses, [b, k, max_length].
    scores: their log-probabilities, [b, k].
    is_done: which have ended, [b, k].
    failed: outputs whose logits were NaN or infinite, [b].
  """

  index: jax.Array
  logits: jax.Array
  cache: Cache
  tokens: jax.Array
  scores: jax.Array
  is_done: jax.Array
  failed: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(model, options, variables, inputs, input_mask, allowed):
  """Returns the best hypothesis of each output, [b, max_length]."""
  (b, s), k = inputs.shape, options.num_beams
  start = jnp.full((b * k, 1), options.start_id, jnp.int32)
  variables = quantize_once(model, variables, inputs, start[:b])
  memory = model.apply(
    variables, inputs, input_mask=input_mask, method="encode"
  )
  memory, input_mask = (jnp.repeat(a, k, axis=0) for a in (memory, input_mask))
  decode = functools.partial(
    model.apply, variables, input_mask=input_mask, method="decode"
  )
  cache = make_cache(
    model.cfg.decoder, batch=b * k, length=options.max_length, memory_length=s
  )
  logits, cache = decode(start, jnp.zeros_like(start), cache, memory=memory)
  # All hypotheses begin alike, so only the first may be continued at first.
  scores = jnp.where(jnp.arange(k) == 0, 0.0, -jnp.inf)

  def is_going_on(beams):
    ended = jnp.all(beams.is_done | beams.failed[:, None])
    return (beams.index < options.max_length) & ~ended

  beams = _Beams(
    jnp.int32(0),
    logits,
    cache,
    jnp.full((b, k, options.max_length), options.stop_id, jnp.int32),
    jnp.broadcast_to(scores, (b, k)),
    jnp.zeros((b, k), bool),
    jnp.zeros(b, bool),
  )
  beams = jax.lax.while_loop(
    is_going_on,
    functools.partial(_extend, decode, allowed, options.stop_id),
    beams,
  )
  lengths = jnp.sum(beams.tokens != options.stop_id, axis=-1, dtype=jnp.float32)
  penalty = (1 + lengths) ** options.length_penalty
  best = jnp.argmax(beams.scores / penalty, axis=-1)
  outputs = jnp.take_along_axis(beams.tokens, best[:, None, None], axis=1)[:, 0]
  return jnp.where(beams.failed[:, None], NO_TOKEN, outputs)


def _extend(decode, allowed, stop_id, beams):
  """Adds a token to the hypotheses, and leaves the likeliest of each output."""
  b, k = beams.scores.shape
  logits = beams.logits[:, -1].astype(jnp.float32)
  logits = jnp.where(allowed[None], logits, -jnp.inf)
  vocab_size = logits.shape[-1]
  is_valid = is_distribution(logits).reshape(b, k)
  # Logits of what has ended, or cannot be, do not matter.
  in_use = ~beams.is_done & (beams.scores > -jnp.inf)
  failed = beams.failed | jnp.any(~is_valid & in_use, axis=1)
  steps = jax.nn.log_softmax(logits).reshape(b, k, vocab_size)
  steps = jnp.where(is_valid[..., None], steps, -jnp.inf)
  # A finished hypothesis continues with its end token at no cost.
  ended = jnp.where(jnp.arange(vocab_size) == stop_id, 0.0, -jnp.inf)
  steps = jnp.where(beams.is_done[..., None], ended, steps)
  candidates = (beams.scores[..., None] + steps).reshape(b, -1)
  scores, chosen = jax.lax.top_k(candidates, k)
  beam, token = chosen // vocab_size, (chosen % vocab_size).astype(jnp.int32)
  tokens = jnp.take_along_axis(beams.tokens, beam[..., None], axis=1)
  tokens = tokens.at[:, :, beams.index].set(token)
  is_done = jnp.take_along_axis(beams.is_done, beam, axis=1)
  is_done |= token == stop_id
  cache = beams.cache.reorder((jnp.arange(b)[:, None] * k + beam).reshape(-1))
  token = token.reshape(-1, 1)
  position = jnp.full_like(token, beams.index + 1)
  logits, cache = decode(token, position, cache)
  return _Beams(beams.index + 1, logits, cache, tokens, scores, is_done, failed)
