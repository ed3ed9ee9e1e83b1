"""Do rounded gradients cost accuracy?

python experiments/backward/run.py --data=DATA/mnist/mnist.npz \
  --workdir=runs/backward

Four networks under ``b158``, with backward products in float, bfloat16 and
int8, three seeds each; the MNIST networks for three epochs. Runs in
results.jsonl are skipped. Prints the table of docs/performance.md; --table only
prints it.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import pathlib
import sys

from absl import flags

from bitnet_jax.studies import unplanned as study
from bitnet_jax.train.folder import records

CONFIGS = {
  "digits_mlp": {},
  "digits_cnn": {},
  "mnist_mlp": {"total_epochs": 3},
  "mnist_cnn": {"total_epochs": 3},
}
BACKWARD = ("float", "bfloat16", "int8")
SEEDS = range(3)
RESULTS = pathlib.Path(__file__).parent / "results.jsonl"

_DATA = flags.DEFINE_string("data", None, "The file mnist.npz.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def cases(data: str) -> list[study.Case]:
  """Returns the runs."""
  found = []
  for name, changes in CONFIGS.items():
    if name.startswith("mnist"):
      changes = changes | {"data.source": f"file:{data}"}
    for seed in SEEDS:
      for backward in BACKWARD:
        overrides = changes | {"quant.backward": backward, "seed": seed}
        case = f"{name}-{backward}-{seed}"
        found.append(study.Case(case, f"configs/{name}.py", overrides))
  return found


def table() -> str:
  """Returns the test accuracy as Markdown, a row for each network."""
  rows = [
    "| config | float: mean (lowest to highest) | bfloat16 | int8 |",
    "|---|---:|---:|---:|",
  ]
  results = records.load(RESULTS)
  for name in CONFIGS:
    row = [f"`{name}`"]
    for backward in BACKWARD:
      runs = [r for r in results if r["case"].startswith(f"{name}-{backward}-")]
      accuracy = [run["metrics"]["test/accuracy"] for run in runs]
      row.append(study.percent(accuracy) if runs else "not run")
    rows.append(f"| {' | '.join(row)} |")
  return "\n".join(rows)


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    root = pathlib.Path(_WORKDIR.value)
    study.run_missing(cases(_DATA.value), RESULTS, root)
  print(table())


if __name__ == "__main__":
  program.run(main)
