"""What does a ternary head cost a wide MLP over subword tokens?

python experiments/text_classification/run.py --data=DATA --workdir=runs/text

DATA holds the folders text_gcn and tokenizers. Five data sets, three recipes,
three seeds (one for 20ng), one run a core. The settings are those of the
authors, except 20 epochs at five times the learning rate; --epochs=100 uses
theirs. Runs in results.jsonl are skipped, so a stopped study resumes;
checkpoints of finished runs are deleted. Prints the table of the README;
--table only prints it.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import os
import pathlib
import shutil
import statistics
import subprocess
import sys

from absl import flags

from bitnet_jax.train import runner
from bitnet_jax.train.folder import records

CONFIG = "configs/text_mlp.py"
# Test accuracies, in percent, in the README of the authors' example
# (schneiderkamplab/bitlinear, examples/text_classification), 100 epochs.
AUTHORS = {
  "r8": {"float": 97.27, "b158": 97.40, "b158_median": 97.35},
  "r52": {"float": 93.89, "b158": 93.54, "b158_median": 94.20},
  "ohsumed": {"float": 63.95, "b158": 60.75, "b158_median": 62.28},
  "mr": {"float": 76.72, "b158": 77.10, "b158_median": 76.14},
  "20ng": {"float": 83.31, "b158": 79.89, "b158_median": 80.08},
}
FILES = {
  "r8": "R8.raw",
  "r52": "R52.raw",
  "ohsumed": "ohsumed.raw",
  "mr": "mr.raw",
  "20ng": "20ng.clean",
}
RECIPES = ("float", "b158", "b158_median")
# With the first seed only, since it takes as long as three others together.
ONCE = ("20ng",)
# The authors' settings; with fewer epochs the rate is larger in proportion.
EPOCHS, RATE = 100, 1e-3
RESULTS = pathlib.Path(__file__).parent / "results.jsonl"

_DATA = flags.DEFINE_string("data", None, "Folder of text_gcn and tokenizers.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_SETS = flags.DEFINE_list("sets", list(FILES), "Which data sets.")
_RECIPES = flags.DEFINE_list("recipes", list(RECIPES), "Which recipes.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Which seeds.")
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Length of a run.")
_JOBS = flags.DEFINE_integer(
  "jobs", os.cpu_count() or 1, "Number of parallel jobs."
)
_JOB = flags.DEFINE_integer("job", None, "Only the runs of this job.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def table() -> str:
  """Returns the results as Markdown, a row for each data set and recipe."""
  rows = [
    "| data set | recipe | epochs | runs | test accuracy: mean (lowest to"
    " highest) | macro F1 | the authors | minutes a run |",
    "|---|---|---:|---:|---:|---:|---:|---:|",
  ]
  runs: dict[tuple, list] = {}
  for record in records.load(RESULTS):
    case = record["set"], record["config"]["quant"]["recipe"]
    runs.setdefault((*case, record["epochs"]), []).append(record)
  lengths = sorted({epochs for *_, epochs in runs})
  cases = [(s, r, e) for e in lengths for s in FILES for r in RECIPES]
  for name, recipe, epochs in [case for case in cases if case in runs]:
    done = runs[name, recipe, epochs]
    percent = [100 * run["metrics"]["test/accuracy"] for run in done]
    f1 = statistics.mean(run["metrics"]["test/macro_f1"] for run in done)
    minutes = statistics.median(run["wall_time_s"] for run in done) / 60
    rows.append(
      f"| {name} | `{recipe}` | {epochs} | {len(done)} |"
      f" {statistics.mean(percent):.2f} % ({min(percent):.2f} to"
      f" {max(percent):.2f}) | {100 * f1:.2f} % |"
      f" {AUTHORS[name][recipe]:.2f} % | {minutes:.1f} |"
    )
  return "\n".join(rows)


def run_study(data: pathlib.Path, root: pathlib.Path) -> None:
  """Runs every case that has no record yet, or this job's part of them."""
  done = {
    (r["set"], r["config"]["quant"]["recipe"], r["config"]["seed"], r["epochs"])
    for r in records.load(RESULTS)
  }
  cases = [
    (name, recipe, seed, _EPOCHS.value)
    for i, seed in enumerate(map(int, _SEEDS.value))
    for name in _SETS.value
    for recipe in _RECIPES.value
    if not (i and name in ONCE)
  ]
  if _JOB.value is not None:
    cases = cases[_JOB.value :: _JOBS.value]
  for case in cases:
    if case not in done:
      folder = root / "-".join(map(str, case))
      records.append(RESULTS, _run(data, folder, *case))
      shutil.rmtree(folder / "checkpoints")


def _run(data, folder, name, recipe, seed, epochs):
  vocabulary = "bert_base_uncased_vocab.txt"
  overrides = {
    "data.source": f"textgcn:{data / 'text_gcn' / FILES[name]}",
    "data.tokenizer": f"bert:{data / 'tokenizers' / vocabulary}",
    "quant.recipe": recipe,
    "seed": seed,
    "total_epochs": epochs,
    "optim.learning_rate": RATE * EPOCHS / epochs,
  }
  config = runner.load_config(f"{CONFIG}:{name}", overrides)
  result = runner.run(config, folder)
  result["config"]["data"] |= {
    "source": f"textgcn:{FILES[name]}",
    "tokenizer": f"bert:{vocabulary}",
  }
  return result | {"set": name, "epochs": epochs}


def run_jobs(argv: list[str]) -> None:
  """Runs the study in one process per job, each on one core.

  A step is too small to gain much from a second core.
  """
  jobs = [
    subprocess.Popen([sys.executable, *argv, f"--job={i}"])
    for i in range(_JOBS.value)
  ]
  codes = [job.wait() for job in jobs]
  if any(codes):
    sys.exit(f"error: jobs ended with {codes}; the same command resumes")


def _keep_to_one_core(job):
  """Pins this process and its future threads to one core."""
  if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[job % len(cores)]})


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    paths = pathlib.Path(_DATA.value), pathlib.Path(_WORKDIR.value)
    if _JOB.value is not None:
      _keep_to_one_core(_JOB.value)
      run_study(*paths)
      return
    if _JOBS.value > 1:
      run_jobs(sys.argv)
    else:
      run_study(*paths)
  print(table())


if __name__ == "__main__":
  program.run(main)
