"""Generates text with trained decoders and encoder-decoders."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bitnet_jax.data.text.saved import load_vocabulary
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.files import PathLike, local_path
from bitnet_jax.inference import Sampling, beam_search, stream
from bitnet_jax.inference.prompts import check_ids
from bitnet_jax.inference.storage import load_frozen
from bitnet_jax.models.decoder import Decoder
from bitnet_jax.models.encoder_decoder import EncoderDecoder
from bitnet_jax.train.devices.compilation import keep_compiled
from bitnet_jax.train.folder import bucket
from bitnet_jax.train.folder.trained import load_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritingOptions:
  """Options of generation.

  Attributes:
    max_new_tokens: most tokens to generate.
    sampling: sampling of decoders.
    seed: seed of the sampling.
    num_beams: number of beams of encoder-decoders.
    length_penalty: for encoder-decoders, see ``beam_search``.
  """

  max_new_tokens: int
  sampling: Sampling
  seed: int = 0
  num_beams: int = 1
  length_penalty: float = 1.0


class Writer(NamedTuple):
  """A model that generates text.

  Attributes:
    model: decoder or encoder-decoder.
    variables: its variables, frozen or not.
    tokenizer: its vocabulary.
    start_id: first token of an encoder-decoder's decoder; 0 for decoders.
    first_id: token that a decoder reads before a prompt; ``None`` for the end
      token, as in training here.
    stop_id: one or several end tokens; ``None`` for eos of the vocabulary.
  """

  model: Any
  variables: Mapping[str, Any]
  tokenizer: Tokenizer
  start_id: int
  first_id: int | None = None
  stop_id: int | Sequence[int] | None = None

  @property
  def stop_ids(self) -> tuple[int, ...]:
    """The end tokens, at least one.

    Raises:
      ValueError: if there is none, or one that the model does not have.
    """
    vocab_size = self.model.cfg.vocab_size
    found = tuple(check_ids("stop_id", self.stop_id, vocab_size).tolist())
    return found or (self.tokenizer.need("eos", purpose="writing"),)

  @property
  def banned(self) -> np.ndarray:
    """Ids of the model without a token, which are never generated."""
    return self.tokenizer.unused_ids(self.model.cfg.vocab_size)


class Written(NamedTuple):
  """Generated texts, and their speed.

  Attributes:
    texts: the continuation of each prompt, or the output for it.
    tokens: number of generated tokens, including end tokens.
    seconds: time to generate them; for decoders after the first token, without
      compilation and prompts.
  """

  texts: list[str]
  tokens: int
  seconds: float


def writer_of_run(folder: PathLike, checkpoint: str = "last") -> Writer:
  """Returns the model of a run.

  Args:
    folder: the workdir.
    checkpoint: "last", "best", or a step.

  Raises:
    ValueError: if there is no run or no such checkpoint, or if the model cannot
      generate text.
  """
  folder = bucket.place(folder)
  keep_compiled()
  found = load_model(folder, checkpoint)
  _check_writes(found.model, found.tokenizer, f"--workdir={folder}")
  assert found.tokenizer is not None
  start_id = found.task.facts.start_id or 0
  return Writer(found.model, found.variables, found.tokenizer, start_id)


def writer_of_frozen(folder: PathLike) -> Writer:
  """Returns the model that ``frozen.freeze_run`` put into a folder.

  Raises:
    FileNotFoundError: if there is none.
    ValueError: if a file is damaged, or if the model cannot generate text.
  """
  folder = local_path(folder)
  keep_compiled()
  model, variables, record = load_frozen(folder)
  tokenizer = None
  if "tokenizer" in record:
    tokenizer = load_vocabulary(record["tokenizer"], folder)
  _check_writes(model, tokenizer, f"--frozen={folder}")
  assert tokenizer is not None
  given = {n: record[n] for n in ("first_id", "stop_id") if n in record}
  start_id = record.get("start_id", 0)
  return Writer(model, variables, tokenizer, start_id, **given)


def _check_writes(model, tokenizer, where):
  if tokenizer is None or not isinstance(model, (Decoder, EncoderDecoder)):
    raise ValueError(
      f"{where} holds a model {type(model).__name__}, which does not write;"
      " Decoder and EncoderDecoder do"
    )


def write(
  writer: Writer,
  prompts: Sequence[str],
  options: WritingOptions,
  show: Callable[[str], None] | None = None,
) -> Written:
  """Generates text for each prompt.

  Args:
    writer: the model.
    prompts: at least one, none empty.
    options: options of generation.
    show: called with each new part of the first text, as soon as a decoder has
      generated it.

  Raises:
    FloatingPointError: if the model computes NaN or infinity.
    ValueError: for a prompt that is empty or too long.
  """
  ids = writer.tokenizer.encode_batch(prompts)
  for prompt, found in zip(prompts, ids, strict=True):
    if not len(found):
      raise ValueError(f"the prompt {prompt!r} has no token")
  stop_ids = writer.stop_ids
  if isinstance(writer.model, Decoder):
    return _continue(writer, ids, stop_ids, options, show)
  began = time.monotonic()
  rows = _answer(writer, ids, stop_ids[0], options)
  texts = [writer.tokenizer.decode(np.asarray(r, np.int32)) for r in rows]
  tokens = sum(map(len, rows)) + len(rows)
  return Written(texts, tokens, time.monotonic() - began)


def _continue(writer, ids, stop_ids, options, show) -> Written:
  # As in training, a text starts after the end token of the previous text.
  first_id = stop_ids[0] if writer.first_id is None else writer.first_id
  prompts = [[first_id, *map(int, found)] for found in ids]
  steps = stream(
    writer.model,
    writer.variables,
    prompts,
    max_new_tokens=options.max_new_tokens,
    sampling=options.sampling,
    stop_id=stop_ids,
    banned=writer.banned,
    seed=options.seed,
  )
  rows: list[list[int]] = [[] for _ in prompts]
  new_text = _NewText(writer.tokenizer)
  began, tokens = time.monotonic(), 0
  for count, step in enumerate(steps):
    if not count:
      began = time.monotonic()
    else:
      tokens += sum(token is not None for token in step)
    for row, token in zip(rows, step, strict=True):
      row += [] if token is None else [token]
    if show is not None:
      show(new_text.of(rows[0]))
  seconds = time.monotonic() - began
  if show is not None:
    show(new_text.of(rows[0], ended=True))
  decode = writer.tokenizer.decode
  texts = [decode(np.asarray(row, np.int32)) for row in rows]
  return Written(texts, tokens, seconds)


class _NewText:
  """Returns the new part of a growing text, in whole characters."""

  def __init__(self, tokenizer: Tokenizer):
    self._tokenizer, self._shown = tokenizer, ""

  def of(self, row: Sequence[int], *, ended: bool = False) -> str:
    """Returns the part that was not returned before."""
    text = self._tokenizer.decode(np.asarray(row, np.int32))
    if not ended:
      # An incomplete character of several tokens decodes to this.
      text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    if not text.startswith(self._shown):
      return ""
    new, self._shown = text[len(self._shown) :], text
    return new


def _answer(
  writer: Writer,
  ids: Sequence[np.ndarray],
  stop_id: int,
  options: WritingOptions,
) -> list[list[int]]:
  longest = max(map(len, ids)) + 1
  inputs = np.full((len(ids), longest), stop_id, np.int32)
  mask = np.zeros((len(ids), longest), np.int32)
  for row, found in enumerate(ids):
    inputs[row, : len(found)] = found
    mask[row, : len(found) + 1] = 1
  outputs = beam_search(
    writer.model,
    writer.variables,
    jnp.asarray(inputs),
    jnp.asarray(mask),
    start_id=writer.start_id,
    stop_id=stop_id,
    max_length=options.max_new_tokens,
    num_beams=options.num_beams,
    length_penalty=options.length_penalty,
    banned=writer.banned,
  )
  rows = np.asarray(outputs).tolist()
  return [row[: row.index(stop_id)] if stop_id in row else row for row in rows]
