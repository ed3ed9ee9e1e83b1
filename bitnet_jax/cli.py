"""The console script: ``bitnet-jax VERB --flag=value`` runs a program.

Each verb imports its own module of ``bitnet_jax/commands`` only.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import dataclasses
import importlib
import sys

import bitnet_jax
from bitnet_jax import choices


@dataclasses.dataclass(frozen=True)
class Verb:
  """A program of the console script.

  Attributes:
    module: its module in ``bitnet_jax.commands``, with flags and ``main``.
    does: one line on what it does, 60 characters at most.
  """

  module: str
  does: str


VERBS = {
  "train": Verb("train", "train the network of a config, or resume it"),
  "evaluate": Verb("evaluate", "score a trained model on all splits"),
  "predict": Verb("predict", "classify, rate or translate new inputs"),
  "generate": Verb("generate", "write text with a trained model"),
  "export": Verb("export", "freeze, or write for other programs"),
  "import": Verb("import_hf", "take a decoder from Hugging Face transformers"),
  "sweep": Verb("sweep", "train a run for each combination of values"),
  "compare": Verb(
    "compare", "compare finished runs: table, intervals, figures"
  ),
  "runs": Verb("runs", "list the runs below a folder"),
  "report": Verb("report", "write all studies as a site, or show live runs"),
  "compile": Verb("compile_tpu", "check whether a model fits a TPU"),
}
_NAME = "bitnet-jax"


def main() -> None:
  """Runs the program that the first word of the command line names.

  Exits with status 2 and one line for an unknown verb.
  """
  words = sys.argv[1:]
  if not words or words[0] in ("-h", "-help", "--help", "help"):
    print(describe())
    return
  verb, *rest = words
  if verb in ("--version", "-V"):
    print(f"{_NAME} {bitnet_jax.__version__}")
    return
  try:
    found = choices.pick(VERBS, verb, key="the first word")
  except ValueError as error:
    print(f"error: {error}; {_NAME} --help says what they do", file=sys.stderr)
    sys.exit(2)
  sys.argv = [f"{_NAME} {verb}", *rest]
  module = importlib.import_module(f"bitnet_jax.commands.{found.module}")
  program.run(module.main)


def describe() -> str:
  """Returns the help: every verb with one line."""
  width = max(map(len, VERBS))
  lines = [f"usage: {_NAME} VERB --flag=value ...", ""]
  lines += [f"  {verb:{width}}  {it.does}" for verb, it in VERBS.items()]
  lines += ["", f"{_NAME} VERB --help shows the flags and examples of a verb."]
  return "\n".join(lines)
