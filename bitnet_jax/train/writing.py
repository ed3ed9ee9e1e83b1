"""Text from trained models: prompts continued, or inputs rewritten."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from bitnet_jax.inference import Sampling, beam_search, generate
from bitnet_jax.models.decoder import Decoder
from bitnet_jax.models.encoder_decoder import EncoderDecoder
from bitnet_jax.train import runner
from bitnet_jax.train.compilation import keep_compiled
from bitnet_jax.train.experiment import Experiment


@dataclasses.dataclass(frozen=True, kw_only=True)
class WritingOptions:
  """How a model writes.

  Attributes:
    max_new_tokens: where to stop at the latest.
    sampling: of causal models.
    seed: of the sampling.
    num_beams: of encoder-decoders.
    length_penalty: of encoder-decoders, see ``beam_search``.
  """

  max_new_tokens: int
  sampling: Sampling
  seed: int = 0
  num_beams: int = 1
  length_penalty: float = 1.0


def write(
  folder: pathlib.Path,
  prompts: Sequence[str],
  options: WritingOptions,
  checkpoint: str = "last",
) -> list[str]:
  """Has the model of a run continue, or answer, each prompt.

  Args:
    folder: the workdir.
    prompts: at least one, none of them empty.
    options: how.
    checkpoint: "last", "best", or a step.

  Returns:
    What follows each prompt; for an encoder-decoder, what it makes of it.

  Raises:
    ValueError: if there is no run or no such checkpoint, if the model is not
      one that writes, or for a prompt that is empty or too long.
  """
  keep_compiled()
  experiment, state = runner.load_run(folder, checkpoint)
  tokenizer = experiment.problem.tokenizer
  model: Any = getattr(experiment.problem.task, "model", None)
  if tokenizer is None or not isinstance(model, (Decoder, EncoderDecoder)):
    raise ValueError(
      f"--workdir={folder} holds a model.name"
      f" {experiment.settings.model.name!r}, which does not write; decoder and"
      " encoder_decoder do"
    )
  ids = tokenizer.encode_batch(prompts)
  for prompt, found in zip(prompts, ids, strict=True):
    if not len(found):
      raise ValueError(f"the prompt {prompt!r} has no token")
  params = {"params": state.params}
  stop_id = tokenizer.need("eos", purpose="writing")
  with experiment.activate():
    if isinstance(model, Decoder):
      # As in training, a text starts after the end of another.
      written = generate(
        model,
        params,
        [[stop_id, *map(int, found)] for found in ids],
        max_new_tokens=options.max_new_tokens,
        sampling=options.sampling,
        stop_id=stop_id,
        seed=options.seed,
      )
    else:
      written = _rewrite(experiment, model, params, ids, stop_id, options)
  return [tokenizer.decode(np.asarray(row, np.int32)) for row in written]


def _rewrite(
  experiment: Experiment,
  model: EncoderDecoder,
  params: Any,
  ids: Sequence[np.ndarray],
  stop_id: int,
  options: WritingOptions,
) -> list[list[int]]:
  example = experiment.problem.train_batch(0)
  longest = max(map(len, ids)) + 1
  inputs = np.full((len(ids), longest), stop_id, np.int32)
  mask = np.zeros((len(ids), longest), np.int32)
  for row, found in enumerate(ids):
    inputs[row, : len(found)] = found
    mask[row, : len(found) + 1] = 1
  outputs = beam_search(
    model,
    params,
    jnp.asarray(inputs),
    jnp.asarray(mask),
    start_id=int(example["tokens"][0, 0]),
    stop_id=stop_id,
    max_length=options.max_new_tokens,
    num_beams=options.num_beams,
    length_penalty=options.length_penalty,
  )
  rows = np.asarray(outputs).tolist()
  return [row[: row.index(stop_id)] if stop_id in row else row for row in rows]
