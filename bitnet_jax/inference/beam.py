"""Greedy and beam search with an encoder-decoder."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from bitnet_jax.inference.generate import quantize_once
from bitnet_jax.inference.prompts import (
  check_ids,
  check_integers,
  check_range,
  may_be_written,
  unboxed,
)
from bitnet_jax.inference.sampling import NO_TOKEN, is_distribution
from bitnet_jax.models.cache import make_cache
from bitnet_jax.models.encoder_decoder import EncoderDecoder


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
  """Returns the likeliest outputs found.

  At each step the ``num_beams`` likeliest beginnings of each output are kept;
  those that have ended stay as they are. One beam is greedy search. Kernels
  are quantized once.

  Args:
    model: the model.
    variables: its parameters, ``{"params": ...}``.
    inputs: ids.
    input_mask: 1 for inputs, 0 for padding.
    start_id: what the decoder starts with.
    stop_id: ends an output.
    max_length: where to stop at the latest, in tokens.
    num_beams: beginnings that are kept.
    length_penalty: at the end the log-probability of each output is divided by
      its length to this power; the largest wins.
    banned: ids that are never written, see ``generate``.

  Returns:
    Ids without the start, ``stop_id`` from the end of each output on;
    t = ``max_length``. Within ``jax.jit``, ``NO_TOKEN`` in rows where an error
    could not be raised.

  Raises:
    FloatingPointError: if logits are NaN or infinite.
    ValueError: for a number that is not positive, inputs that are no ids, or
      more tokens than the model has positions for.
  """
  variables = unboxed(variables)
  inputs, input_mask = _check_inputs(model.cfg, inputs, input_mask)
  ids = {"start_id": start_id, "stop_id": stop_id}
  for name, value in ids.items():
    if len(check_ids(name, value, model.cfg.vocab_size)) != 1:
      raise ValueError(f"{name} is {value}; it must be one id")
  may = may_be_written(banned, (stop_id,), model.cfg.vocab_size)
  _check_numbers(max_length, num_beams, length_penalty, int(may.sum()))
  outputs = _search(
    model,
    variables,
    inputs,
    input_mask,
    jnp.asarray(may),
    start_id=start_id,
    stop_id=stop_id,
    max_length=max_length,
    num_beams=num_beams,
    length_penalty=length_penalty,
  )
  _check_outputs(outputs)
  return outputs


def _check_inputs(cfg, inputs, input_mask):
  """Returns what is read as arrays."""
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


def _check_numbers(max_length, num_beams, length_penalty, num_tokens):
  for name, value in (("num_beams", num_beams), ("max_length", max_length)):
    if not isinstance(value, (int, np.integer)) or value < 1:
      raise ValueError(f"{name} is {value}; it must be at least 1, and whole")
  if num_beams > num_tokens:
    raise ValueError(
      f"num_beams is {num_beams}, more than the {num_tokens} tokens"
    )
  # Scores are divided by this.
  largest = abs(length_penalty) * math.log2(1 + max_length)
  if not largest < jnp.finfo(jnp.float32).maxexp - 1:
    raise ValueError(
      f"length_penalty is {length_penalty}; a length of {max_length} to this"
      " power must be finite"
    )


def _check_outputs(outputs):
  """Raises a FloatingPointError where there are none."""
  if _is_here(outputs):
    failed = np.flatnonzero(np.any(np.asarray(outputs) == NO_TOKEN, axis=1))
    if len(failed):
      raise FloatingPointError(
        f"row {failed[0]}: the logits are NaN or infinite, so that no output"
        " can be chosen; look for such values in the variables of the model"
      )


def _is_here(array) -> bool:
  """Whether the values of an array can be looked at."""
  return not isinstance(array, jax.core.Tracer) and (
    array.is_fully_addressable or array.is_fully_replicated
  )


@functools.partial(
  jax.jit,
  static_argnames=(
    "model",
    "start_id",
    "stop_id",
    "max_length",
    "num_beams",
    "length_penalty",
  ),
)
def _search(
  model,
  variables,
  inputs,
  input_mask,
  may,
  *,
  start_id,
  stop_id,
  max_length,
  num_beams,
  length_penalty,
):
  b, s = inputs.shape
  start = jnp.full((b * num_beams, 1), start_id, jnp.int32)
  variables = quantize_once(model, variables, inputs, start[:b])
  memory = model.apply(
    variables, inputs, input_mask=input_mask, method="encode"
  )
  memory, input_mask = (
    jnp.repeat(a, num_beams, axis=0) for a in (memory, input_mask)
  )
  decode = functools.partial(
    model.apply, variables, input_mask=input_mask, method="decode"
  )
  cache = make_cache(
    model.cfg.decoder, batch=b * num_beams, length=max_length, memory_length=s
  )
  logits, cache = decode(start, jnp.zeros_like(start), cache, memory=memory)
  # All beams begin alike, so only the first may be continued at first.
  scores = jnp.where(jnp.arange(num_beams) == 0, 0.0, -jnp.inf)
  # An output that has ended goes on with its end, at no cost.
  vocab_size = logits.shape[-1]
  ended = jnp.where(jnp.arange(vocab_size) == stop_id, 0.0, -jnp.inf)

  def is_going_on(state):
    i, *_, done, failed = state
    return (i < max_length) & ~jnp.all(done | failed[:, None])

  def extend(state):
    i, logits, cache, written, scores, done, failed = state
    logits = jnp.where(may[None], logits[:, -1].astype(jnp.float32), -jnp.inf)
    told = is_distribution(logits).reshape(b, num_beams)
    # What has ended, or cannot be, does not ask its logits.
    failed |= jnp.any(~told & ~done & (scores > -jnp.inf), axis=1)
    steps = jax.nn.log_softmax(logits).reshape(b, num_beams, vocab_size)
    steps = jnp.where(told[..., None], steps, -jnp.inf)
    steps = jnp.where(done[..., None], ended, steps)
    candidates = (scores[..., None] + steps).reshape(b, -1)
    scores, chosen = jax.lax.top_k(candidates, num_beams)
    beam, token = chosen // vocab_size, (chosen % vocab_size).astype(jnp.int32)
    written = jnp.take_along_axis(written, beam[..., None], axis=1)
    written = written.at[:, :, i].set(token)
    done = jnp.take_along_axis(done, beam, axis=1) | (token == stop_id)
    rows = (jnp.arange(b)[:, None] * num_beams + beam).reshape(-1)
    cache = cache.reorder(rows)
    token = token.reshape(-1, 1)
    logits, cache = decode(token, jnp.full_like(token, i + 1), cache)
    return i + 1, logits, cache, written, scores, done, failed

  state = (
    jnp.int32(0),
    logits,
    cache,
    jnp.full((b, num_beams, max_length), stop_id, jnp.int32),
    jnp.broadcast_to(scores, (b, num_beams)),
    jnp.zeros((b, num_beams), bool),
    jnp.zeros(b, bool),
  )
  final = jax.lax.while_loop(is_going_on, extend, state)
  *_, written, scores, _, failed = final
  lengths = 1 + jnp.sum(written != stop_id, axis=-1, dtype=jnp.float32)
  best = jnp.argmax(scores / lengths**length_penalty, axis=-1)
  outputs = jnp.take_along_axis(written, best[:, None, None], axis=1)[:, 0]
  return jnp.where(failed[:, None], NO_TOKEN, outputs)
