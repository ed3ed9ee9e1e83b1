r"""Generates text with a trained model: continues or translates prompts.

bitnet-jax generate --workdir=runs/pydoc-decoder \
  --prompt="The " [--prompt=...] [--temperature=0.8] [--top_p=0.95]
bitnet-jax generate --frozen=frozen/pydoc-decoder --prompt="The "

Prints each prompt with the text that a decoder generates after it, or the
output of an encoder-decoder for it; --json prints JSON lines. The text after a
single prompt is streamed. The speed is printed to standard error.
"""

import json
import pathlib
import sys

from absl import flags

from bitnet_jax.inference import Sampling
from bitnet_jax.programs import writing
from bitnet_jax.train.folder import bucket

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_FROZEN = flags.DEFINE_string("frozen", None, "Folder of a frozen model.")
_PROMPT = flags.DEFINE_multi_string(
  "prompt", None, "Prompt text; may be given several times."
)
_PROMPTS = flags.DEFINE_string("prompts", None, "File with one prompt a line.")
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "last", "Checkpoint to load: last, best or a step."
)
_MAX_NEW_TOKENS = flags.DEFINE_integer(
  "max_new_tokens", 64, "Most tokens to generate."
)
_TEMPERATURE = flags.DEFINE_float(
  "temperature",
  0.8,
  "Sampling temperature of a decoder; 0 takes the most likely token.",
)
_TOP_K = flags.DEFINE_integer(
  "top_k", None, "Sample from the k most likely tokens."
)
_TOP_P = flags.DEFINE_float(
  "top_p",
  None,
  "Sample from the most likely tokens with this total probability.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the sampling.")
_NUM_BEAMS = flags.DEFINE_integer("num_beams", 4, "Of an encoder-decoder.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON lines.")  # noqa: FBT003


def main(argv):
  """Generates and prints."""
  del argv
  prompts, options = _prompts(), _options()
  shows = len(prompts) == 1 and not _JSON.value
  writer = _writer()
  if shows:
    _show(f"{prompts[0]}|")
  written = writing.write(writer, prompts, options, _show if shows else None)
  for prompt, text in zip(prompts, written.texts, strict=True):
    if _JSON.value:
      print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False))
    else:
      print("" if shows else f"{prompt}|{text}\n")
  if written.tokens:
    speed = written.tokens / written.seconds
    print(f"{speed:.1f} tokens/s", file=sys.stderr)


def _prompts():
  prompts = list(_PROMPT.value or [])
  if _PROMPTS.value:
    text = pathlib.Path(_PROMPTS.value).expanduser().read_text("utf-8")
    prompts += text.splitlines()
  if not prompts:
    raise ValueError(
      "--prompt, or --prompts with one prompt a line, is required"
    )
  return prompts


def _options():
  return writing.WritingOptions(
    max_new_tokens=_MAX_NEW_TOKENS.value,
    sampling=Sampling(
      temperature=_TEMPERATURE.value, top_k=_TOP_K.value, top_p=_TOP_P.value
    ),
    seed=_SEED.value,
    num_beams=_NUM_BEAMS.value,
  )


def _writer():
  run, model = _WORKDIR.value, _FROZEN.value
  if run is not None and model is None:
    return writing.writer_of_run(bucket.place(run), _CHECKPOINT.value)
  if model is not None and run is None:
    return writing.writer_of_frozen(pathlib.Path(model).expanduser())
  raise ValueError("exactly one of --workdir and --frozen is required")


def _show(text):
  print(text, end="", flush=True)
