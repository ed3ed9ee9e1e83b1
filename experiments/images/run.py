"""Do ternary networks match float networks on CIFAR-10?

python experiments/images/run.py \
  --data=DATA/cifar10_subset/cifar10_subset.npz --workdir=runs/cifar10

A CNN and a vision transformer, each under two recipes, with random crops and
flips. Runs in results.jsonl are skipped; --table only prints the table of the
README.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import pathlib
import statistics
import sys

from absl import flags

from bitnet_jax.studies import unplanned as study
from bitnet_jax.train.folder import records

NETWORKS = {
  "cnn": "configs/cifar10_cnn.py",
  "vit": "configs/cifar10_vit.py",
}
RECIPES = ("float", "b158")
RESULTS = pathlib.Path(__file__).parent / "results.jsonl"

_DATA = flags.DEFINE_string("data", None, "The file of images.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_NETWORKS = flags.DEFINE_list("networks", list(NETWORKS), "Which networks.")
_RECIPES = flags.DEFINE_list("recipes", list(RECIPES), "Which recipes.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Which seeds.")
_RATES = flags.DEFINE_list("learning_rates", ["0.001"], "Peak learning rates.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def cases(data: str) -> list[study.Case]:
  """Returns the runs."""
  return [
    study.Case(
      f"{network}-{recipe}-{rate}-{seed}",
      NETWORKS[network],
      {
        "data.source": f"file:{data}",
        "quant.recipe": recipe,
        "optim.learning_rate": float(rate),
        "seed": int(seed),
        "data.random_crop": 4,
        "data.random_flip": True,
      },
    )
    for seed in _SEEDS.value
    for rate in _RATES.value
    for network in _NETWORKS.value
    for recipe in _RECIPES.value
  ]


def table() -> str:
  """Returns the results as Markdown."""
  rows = [
    "| network | recipe | learning rate | parameters | runs | test accuracy |"
    " minutes a run |",
    "|---|---|---:|---:|---:|---:|---:|",
  ]
  keys = ("model.name", "quant.recipe", "optim.learning_rate")
  runs = records.group(records.load(RESULTS), *keys)
  for (network, recipe, rate), found in runs.items():
    accuracy = study.percent(run["metrics"]["test/accuracy"] for run in found)
    minutes = statistics.median(run["wall_time_s"] for run in found) / 60
    rows.append(
      f"| {network} | `{recipe}` | {rate:g} | {found[0]['num_params']:,} |"
      f" {len(found)} | {accuracy} | {minutes:.0f} |"
    )
  return "\n".join(rows)


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    study.run_missing(cases(_DATA.value), RESULTS, pathlib.Path(_WORKDIR.value))
  print(table())


if __name__ == "__main__":
  program.run(main)
