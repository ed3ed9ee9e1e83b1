"""Do 100 thousand ternary parameters match float parameters on MNIST?

python experiments/mnist/run.py --data=DATA/mnist/mnist.npz --workdir=runs/mnist
python experiments/mnist/run.py --data=DATA/mnist/mnist.npz \
  --workdir=runs/mnist-times --timing

Two networks, three recipes and three seeds, ten epochs each. Runs in
results.jsonl are skipped, so a stopped study resumes. The second command times
a few hundred steps of each network and recipe in turn, on an otherwise idle
machine, into times.jsonl. Both print the table of the README; --table only
prints it.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import pathlib
import statistics
import sys

from absl import flags

from bitnet_jax.train import runner
from bitnet_jax.train.folder import metrics, records

NETWORKS = {"cnn": "configs/mnist_cnn.py", "mlp": "configs/mnist_mlp.py"}
RECIPES = ("float", "b158", "b158_median")
SEEDS = ("0", "1", "2")
HERE = pathlib.Path(__file__).parent
RESULTS, TIMES = HERE / "results.jsonl", HERE / "times.jsonl"
STEPS_AN_EPOCH = 57_000 / 128
# Steps between which time is measured; compilation is over before the first.
TIMED = (50, 250)
ROUNDS = 3

_DATA = flags.DEFINE_string("data", None, "The file mnist.npz.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_NETWORKS = flags.DEFINE_list("networks", list(NETWORKS), "Which networks.")
_SEEDS = flags.DEFINE_list("seeds", list(SEEDS), "Which seeds.")
_TIMING = flags.DEFINE_bool("timing", False, "Time steps only.")  # noqa: FBT003
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def table() -> str:
  """Returns the results as Markdown, a row for each network and recipe."""
  rows = [
    "| network | recipe | parameters | test accuracy: mean (lowest to highest)"
    " | seconds an epoch |",
    "|---|---|---:|---:|---:|",
  ]
  runs = records.group(records.load(RESULTS), "model.name", "quant.recipe")
  times = records.group(records.load(TIMES), "model.name", "quant.recipe")
  for case in [(n, r) for n in NETWORKS for r in RECIPES if (n, r) in runs]:
    percent = [100 * run["metrics"]["test/accuracy"] for run in runs[case]]
    seconds = [time["epoch_s"] for time in times.get(case, [])]
    rows.append(
      f"| {case[0]} | `{case[1]}` | {runs[case][0]['num_params']:,} |"
      f" {statistics.mean(percent):.2f} % ({min(percent):.2f} to"
      f" {max(percent):.2f}) |"
      f" {f'{statistics.median(seconds):.1f}' if seconds else ''} |"
    )
  return "\n".join(rows)


def run_study(data: str, root: pathlib.Path) -> None:
  """Runs every case that has no record yet."""
  done = {record["run_id"] for record in records.load(RESULTS)}
  for seed in map(int, _SEEDS.value):
    for network in _NETWORKS.value:
      for recipe in RECIPES:
        overrides = {"quant.recipe": recipe, "seed": seed}
        folder = root / f"{network}-{recipe}-{seed}"
        result = _run(network, data, folder, overrides)
        if result["run_id"] not in done:
          records.append(RESULTS, result)


def run_timing(data: str, root: pathlib.Path) -> None:
  """Times the training steps of every case in turn, ``ROUNDS`` times."""
  for i in range(ROUNDS):
    for network in _NETWORKS.value:
      for recipe in RECIPES:
        folder = root / f"{network}-{recipe}-{i}"
        overrides = {
          "quant.recipe": recipe,
          "total_epochs": None,
          "total_steps": TIMED[1],
          "log_every": 50,
        }
        result = _run(network, data, folder, overrides)
        lines = metrics.read_metrics(folder)
        at = {line["step"]: line["time"] for line in lines}
        seconds = (at[TIMED[1]] - at[TIMED[0]]) / (TIMED[1] - TIMED[0])
        records.append(TIMES, result | {"epoch_s": seconds * STEPS_AN_EPOCH})


def _run(network, data, folder, overrides):
  source = {"data.source": f"file:{data}"}
  config = runner.load_config(NETWORKS[network], source | overrides)
  result = runner.run(config, folder)
  result["config"]["data"]["source"] = "file:mnist.npz"
  return result


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    run = run_timing if _TIMING.value else run_study
    run(_DATA.value, pathlib.Path(_WORKDIR.value))
  print(table())


if __name__ == "__main__":
  program.run(main)
