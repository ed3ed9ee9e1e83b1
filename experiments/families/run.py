"""Does every model family learn in two minutes, in float and ternary?

python experiments/families/run.py --workdir=runs/families

Trains the configs of the README, whose data comes with Python or the installed
packages, under three recipes, and compares them with the best constant answer:
the largest class, or the token frequencies, of the training split. Runs in
results.jsonl are skipped; --table only prints the table of the README.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import pathlib
import sys

import numpy as np
from absl import flags

from bitnet_jax.studies import unplanned as study
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder import records

CONFIGS = (
  "digits_mlp",
  "digits_cnn",
  "digits_vit",
  "docstrings_mlp",
  "karate_gnn:sgc",
  "karate_gnn:gcn",
  "karate_gnn:sage",
  "karate_gnn:gat",
  "graphs_gnn:sgc",
  "graphs_gnn:gcn",
  "graphs_gnn:sage",
  "graphs_gnn:gat",
  "pydoc_decoder",
  "pydoc_encoder",
  "pydoc_encoder_decoder",
)
HERE = pathlib.Path(__file__).parent
RESULTS, CONSTANT = HERE / "results.jsonl", HERE / "constant.jsonl"

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_CONFIGS = flags.DEFINE_list("configs", list(CONFIGS), "Which configs.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def cases() -> list[study.Case]:
  """Returns the runs."""
  found = []
  for config in _CONFIGS.value:
    name, _, variant = config.partition(":")
    path = f"configs/{name}.py" + (f":{variant}" if variant else "")
    found += [
      study.Case(f"{config}-{recipe}", path, {"quant.recipe": recipe})
      for recipe in study.RECIPES
    ]
  return found


def run_constant(case: study.Case, root: pathlib.Path) -> None:
  """Records the test score of the best constant answer."""
  config = runner.load_config(case.config, dict(case.overrides))
  experiment = build(config, root / case.name)

  def answers(split: str) -> np.ndarray:
    found = []
    for batch in experiment.data.eval_batches(split):
      answer = batch["targets" if "targets" in batch else "labels"]
      mask = batch.get("mask", np.ones(answer.shape))
      found.append(answer[mask > 0])
    return np.concatenate(found)

  train, test = answers("train"), answers("test")
  counts = np.bincount(train, minlength=test.max() + 1) + 1
  metrics = {
    "test/accuracy": float(np.mean(test == counts.argmax())),
    "test/loss": float(-np.log(counts / counts.sum())[test].mean()),
  }
  name = case.name.rpartition("-")[0]
  records.append(CONSTANT, {"case": name, "metrics": metrics})


def table() -> str:
  """Returns the results as Markdown."""
  rows = [
    "| config | of the test split | constant answer | `float` | `b158` |"
    " `b158_median` | seconds a run |",
    "|---|---|---:|---:|---:|---:|---:|",
  ]
  results = {record["case"]: record for record in records.load(RESULTS)}
  for record in records.load(CONSTANT):
    name = record["case"]
    runs = [results[f"{name}-{recipe}"] for recipe in study.RECIPES]
    likelihood = "test/perplexity" in runs[0]["metrics"]
    metric = "test/loss" if likelihood else "test/accuracy"
    values = [f"{r['metrics'][metric]:.3f}" for r in (record, *runs)]
    seconds = [run["wall_time_s"] for run in runs]
    rows.append(
      f"| `{name}` | {'nats a token' if likelihood else 'accuracy'} |"
      f" {' | '.join(values)} | {min(seconds):.0f} to {max(seconds):.0f} |"
    )
  return "\n".join(rows)


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _WORKDIR.value is None:
      sys.exit("error: --workdir is required without --table")
    root = pathlib.Path(_WORKDIR.value)
    study.run_missing(cases(), RESULTS, root)
    known = {record["case"] for record in records.load(CONSTANT)}
    for case in cases()[:: len(study.RECIPES)]:
      if case.name.rpartition("-")[0] not in known:
        run_constant(case, root)
  print(table())


if __name__ == "__main__":
  program.run(main)
