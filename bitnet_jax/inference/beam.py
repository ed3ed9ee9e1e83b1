"""Greedy and beam search with an encoder-decoder."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from bitnet_jax.inference.generate import quantize_once
from bitnet_jax.models.cache import make_cache
from bitnet_jax.models.encoder_decoder import EncoderDecoder


def beam_search(
  model: EncoderDecoder,
  variables: Mapping[str, Any],
  inputs: Int[Array, "b s"],
  input_mask: Int[Array, "b s"],
  *,
  start_id: int,
  stop_id: int,
  max_length: int,
  num_beams: int = 1,
  length_penalty: float = 1.0,
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

  Returns:
    Ids without the start, ``stop_id`` from the end of each output on;
    t = ``max_length``.

  Raises:
    ValueError: for a number that is not positive, or more tokens than the model
      has positions for.
  """
  for name, value in (("num_beams", num_beams), ("max_length", max_length)):
    if value < 1:
      raise ValueError(f"{name} is {value}; it must be at least 1")
  if num_beams > model.cfg.vocab_size:
    raise ValueError(
      f"num_beams is {num_beams}, more than the {model.cfg.vocab_size} tokens"
    )
  return _search(
    model,
    dict(variables),
    inputs,
    input_mask,
    start_id=start_id,
    stop_id=stop_id,
    max_length=max_length,
    num_beams=num_beams,
    length_penalty=length_penalty,
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
    i, *_, done = state
    return (i < max_length) & ~jnp.all(done)

  def extend(state):
    i, logits, cache, written, scores, done = state
    steps = jax.nn.log_softmax(logits[:, -1].astype(jnp.float32))
    steps = steps.reshape(b, num_beams, vocab_size)
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
    return i + 1, logits, cache, written, scores, done

  state = (
    jnp.int32(0),
    logits,
    cache,
    jnp.full((b, num_beams, max_length), stop_id, jnp.int32),
    jnp.broadcast_to(scores, (b, num_beams)),
    jnp.zeros((b, num_beams), bool),
  )
  *_, written, scores, _ = jax.lax.while_loop(is_going_on, extend, state)
  lengths = 1 + jnp.sum(written != stop_id, axis=-1)
  best = jnp.argmax(scores / lengths**length_penalty, axis=-1)
  return jnp.take_along_axis(written, best[:, None, None], axis=1)[:, 0]
