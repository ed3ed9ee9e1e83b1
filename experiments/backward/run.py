"""What do gradients cost that are rounded before they are multiplied?

python experiments/backward/run.py --data=DATA/mnist/mnist.npz \
  --workdir=runs/backward

Four networks under ``b158``, with backward products in float, bfloat16 and
int8, three seeds each; those on MNIST for three epochs. Runs that are in
results.jsonl are skipped. Prints the table of docs/performance.md; --table does
nothing else.
"""

import pathlib
import statistics
import sys

from absl import app, flags

from bitnet_jax.train import records, runner

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


def table() -> str:
  """Returns the results as Markdown, a row for each network."""
  rows = [
    "| network | data | float: mean (lowest to highest) | bfloat16 | int8 |",
    "|---|---|---:|---:|---:|",
  ]
  runs = records.group(
    records.load(RESULTS), "model.name", "data.source", "quant.backward"
  )
  for name, source in dict.fromkeys(case[:2] for case in runs):
    cells = []
    for backward in BACKWARD:
      percent = [
        100 * run["metrics"]["test/accuracy"]
        for run in runs[name, source, backward]
      ]
      cells.append(
        f"{statistics.mean(percent):.2f} % ({min(percent):.2f} to"
        f" {max(percent):.2f})"
      )
    rows.append(f"| {name} | `{source}` | {' | '.join(cells)} |")
  return "\n".join(rows)


def run_study(data: str, root: pathlib.Path) -> None:
  """Runs what is not in the results."""
  done = {record["run_id"] for record in records.load(RESULTS)}
  for name, changes in CONFIGS.items():
    for seed in SEEDS:
      for backward in BACKWARD:
        overrides = changes | {"quant.backward": backward, "seed": seed}
        if name.startswith("mnist"):
          overrides["data.source"] = f"file:{data}"
        config = runner.load_config(f"configs/{name}.py", overrides)
        result = runner.run(config, root / f"{name}-{backward}-{seed}")
        if name.startswith("mnist"):
          result["config"]["data"]["source"] = "file:mnist.npz"
        if result["run_id"] not in done:
          records.append(RESULTS, result)


def main(argv):
  """Runs what is asked for, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: give --data and --workdir, or --table")
    run_study(_DATA.value, pathlib.Path(_WORKDIR.value))
  print(table())


if __name__ == "__main__":
  app.run(main, flags_parser=runner.parse_flags)
