"""What do ternary weights cost a small decoder on WikiText-2?

python experiments/language_model/run.py --data=DATA/wikitext2 \
  --workdir=runs/wikitext2

Compares three recipes with the same number of steps, ``b158`` with gradients
rounded to bfloat16 before they are multiplied, and two baselines over the same
tokens: their frequencies, and a bigram model interpolated with them (weights by
expectation maximization on the last tenth of the training text). Runs in
results.jsonl are skipped; --table only prints the table of the README.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import pathlib
import sys
from typing import Any

import numpy as np
from absl import flags

from bitnet_jax.studies import unplanned as study
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.allocation import keep_memory
from bitnet_jax.train.folder import records

CONFIG = "configs/wikitext2_decoder.py"
HERE = pathlib.Path(__file__).parent
RESULTS, BASELINES = HERE / "results.jsonl", HERE / "baselines.jsonl"
# Names of runs: name of a recipe, and its backward products.
KINDS = {recipe: (recipe, "float") for recipe in study.RECIPES}
KINDS["b158_bfloat16"] = ("b158", "bfloat16")

_DATA = flags.DEFINE_string("data", None, "Folder of train.txt.xz and so on.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_KINDS = flags.DEFINE_multi_enum("kind", [*KINDS], [*KINDS], "Which runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Which seeds.")
_STEPS = flags.DEFINE_integer(
  "steps", None, "Number of steps, if not the config's."
)
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def cases(data: str) -> list[study.Case]:
  """Returns the runs."""
  overrides: dict[str, Any] = {"data.source": f"file:{data}/{{split}}.txt.xz"}
  if _STEPS.value is not None:
    overrides["total_steps"] = _STEPS.value
  found = []
  for seed in _SEEDS.value:
    for kind in _KINDS.value:
      recipe, backward = KINDS[kind]
      quant = {"quant.recipe": recipe, "quant.backward": backward}
      changes = overrides | quant | {"seed": int(seed)}
      found.append(study.Case(f"{kind}-{seed}", CONFIG, changes))
  return found


def bigram_likelihood(
  train: np.ndarray, valid: np.ndarray, vocab_size: int
) -> tuple[float, float]:
  """Returns the negative log-likelihoods of valid, in nats.

  Args:
    train: ids, [n].
    valid: ids, [m]; the first is given, the rest is predicted.
    vocab_size: number of ids.

  Returns:
    Under the frequencies of single ids, and under the bigram model.
  """
  held_out = len(train) // 10
  weights = np.full(3, 1 / 3)
  parts = _probabilities(train[:-held_out], train[-held_out:], vocab_size)
  for _ in range(50):
    joint = weights * parts
    weights = np.mean(joint / joint.sum(1, keepdims=True), axis=0)
  parts = _probabilities(train, valid, vocab_size)
  unigram = parts[:, :2] @ np.array([1e-6, 1 - 1e-6])
  return -np.log(unigram).sum(), -np.log(parts @ weights).sum()


def _probabilities(train, text, vocab_size):
  """Returns uniform, unigram and bigram probabilities [len(text) - 1, 3]."""
  single = np.bincount(train, minlength=vocab_size)
  pairs, counts = np.unique(
    train[:-1].astype(np.int64) * vocab_size + train[1:], return_counts=True
  )
  before = np.bincount(train[:-1], minlength=vocab_size)
  wanted = text[:-1].astype(np.int64) * vocab_size + text[1:]
  place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
  together = np.where(pairs[place] == wanted, counts[place], 0)
  after = together / np.maximum(before[text[:-1]], 1)
  uniform = np.full(len(wanted), 1 / vocab_size)
  return np.stack([uniform, single[text[1:]] / len(train), after], axis=1)


def run_baselines(case: study.Case, root: pathlib.Path) -> None:
  """Records the baselines, with the vocabulary of an existing run."""
  config = runner.load_config(case.config, dict(case.overrides))
  experiment = build(config, root / case.name)
  assert experiment.data.tokenizer is not None
  tokens = {}
  for split in ("train", "valid"):
    found = [
      batch["targets"][batch["mask"] > 0]
      for batch in experiment.data.eval_batches(split)
    ]
    tokens[split] = np.concatenate(found)
  likelihoods = bigram_likelihood(
    tokens["train"], tokens["valid"], experiment.data.tokenizer.vocab_size
  )
  for name, nll in zip(("unigram", "bigram"), likelihoods, strict=True):
    sums = {"loss": nll, "accuracy": 0.0, "weight": len(tokens["valid"]) - 1}
    metrics = experiment.task.finish("valid", sums)
    found = {f"valid/{key}": metrics[key] for key in metrics}
    records.append(BASELINES, {"case": name, "metrics": found})


def place(case: str) -> tuple[int, str]:
  """Returns the sort key of a run in the table: recipe, then seed."""
  kind, _, seed = case.rpartition("-")
  return list(KINDS).index(kind), seed


def table() -> str:
  """Returns the results as Markdown."""
  rows = [
    "| model | parameters | perplexity per word | bits per byte | per token |"
    " minutes |",
    "|---|---:|---:|---:|---:|---:|",
  ]
  runs = sorted(records.load(RESULTS), key=lambda run: place(run["case"]))
  for record in records.load(BASELINES) + runs:
    metrics = record["metrics"]
    size, minutes = "", ""
    if "num_params" in record:
      size = f"{record['num_params']:,}"
      minutes = f"{record['wall_time_s'] / 60:.0f}"
    rows.append(
      f"| {record['case']} | {size} |"
      f" {metrics['valid/word_perplexity']:.1f} |"
      f" {metrics['valid/bits_per_byte']:.3f} |"
      f" {metrics['valid/perplexity']:.1f} | {minutes} |"
    )
  return "\n".join(rows)


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    keep_memory()
    root = pathlib.Path(_WORKDIR.value)
    study.run_missing(cases(_DATA.value), RESULTS, root)
    if not records.load(BASELINES):
      run_baselines(cases(_DATA.value)[0], root)
  print(table())


if __name__ == "__main__":
  program.run(main)
