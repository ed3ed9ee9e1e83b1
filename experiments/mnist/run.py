"""Do 100 thousand ternary parameters read MNIST as well as float ones?

python experiments/mnist/run.py --data=DATA/mnist/mnist.npz --workdir=runs/mnist

Each of two networks, three recipes and three seeds, ten epochs each. Runs that
are in results.jsonl are skipped, so a stopped study goes on where it was.
Prints the table of the README, which --table alone prints, too.
"""

import pathlib
import statistics
import sys

from absl import app, flags

from bitnet_jax.train import records, runner

NETWORKS = {"cnn": "configs/mnist_cnn.py", "mlp": "configs/mnist_mlp.py"}
RECIPES = ("float", "b158", "b158_median")
SEEDS = ("0", "1", "2")
RESULTS = pathlib.Path(__file__).parent / "results.jsonl"

_DATA = flags.DEFINE_string("data", None, "The file mnist.npz.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_NETWORKS = flags.DEFINE_list("networks", list(NETWORKS), "Which networks.")
_SEEDS = flags.DEFINE_list("seeds", list(SEEDS), "Which seeds.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def table() -> str:
  """Returns the results as Markdown, a row for each network and recipe."""
  rows = [
    "| network | recipe | parameters | test accuracy, mean of seeds (lowest) |"
    " seconds an epoch |",
    "|---|---|---:|---:|---:|",
  ]
  groups = records.group(records.load(RESULTS), "model.name", "quant.recipe")
  order = [(network, recipe) for network in NETWORKS for recipe in RECIPES]
  for network, recipe in order:
    runs = groups.get((network, recipe), [])
    if not runs:
      continue
    accuracies = [100 * run["metrics"]["test/accuracy"] for run in runs]
    seconds = [run["wall_time_s"] / 10 for run in runs]
    rows.append(
      f"| {network} | `{recipe}` | {runs[0]['num_params']:,} |"
      f" {statistics.mean(accuracies):.2f} % ({min(accuracies):.2f}), n ="
      f" {len(runs)} | {statistics.median(seconds):.1f} |"
    )
  return "\n".join(rows)


def main(argv):
  """Runs what is missing, then prints the table."""
  del argv
  if _TABLE.value:
    print(table())
    return
  if _DATA.value is None or _WORKDIR.value is None:
    sys.exit("error: give --data and --workdir, or --table")
  done = {record["run_id"] for record in records.load(RESULTS)}
  for seed in map(int, _SEEDS.value):
    for network in _NETWORKS.value:
      for recipe in RECIPES:
        overrides = {
          "data.source": f"file:{_DATA.value}",
          "quant.recipe": recipe,
          "seed": seed,
        }
        config = runner.load_config(NETWORKS[network], overrides)
        folder = pathlib.Path(_WORKDIR.value) / f"{network}-{recipe}-{seed}"
        result = runner.run(config, folder)
        if result["run_id"] not in done:
          result["config"]["data"]["source"] = "file:mnist.npz"
          records.append(RESULTS, result)
  print(table())


if __name__ == "__main__":
  app.run(main, flags_parser=runner.parse_flags)
