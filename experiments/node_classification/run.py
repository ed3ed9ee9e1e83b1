"""Are 1.58 bits enough to classify papers in a citation graph?

python experiments/node_classification/run.py --data=DATA/planetoid \
  --workdir=runs/nodes

SGC on Cora, CiteSeer and PubMed, as in "When are 1.58 bits enough?" (arXiv
2411.05882), 10 seeds in float and 20 in each ternary recipe; GCN, GraphSAGE and
GAT on Cora, 10 seeds each. Runs in results.jsonl are skipped, so a stopped
study resumes. --table only prints the tables of README.md; their results of the
authors' PyTorch layer are from torch.jsonl, which torch_reference.py writes.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import itertools
import pathlib
import shutil
import statistics
import sys
from collections.abc import Iterable

from absl import flags

from bitnet_jax.train import runner
from bitnet_jax.train.folder import records

CONFIG = "configs/planetoid_gnn.py"
SETS = ("cora", "citeseer", "pubmed")
CONVOLUTIONS = ("gcn", "sage", "gat")
# Overrides and the authors' layer, by the recipe's name in the tables.
RECIPES = {
  "float": ({"quant.recipe": "float"}, "Linear"),
  "mean": ({"quant.recipe": "b158"}, "AbsMean"),
  "median": ({"quant.recipe": "b158_median"}, "AbsMedian"),
  "mean, bias inside": (
    {"quant.recipe": "b158", "quant.bias_in_product": True},
    "AbsMean",
  ),
  "median, bias inside": ({"quant.recipe": "bitlinear"}, "AbsMedian"),
}
SEEDS = {"float": 10, "ternary": 20, "convolution": 10}
# Test accuracy of ten runs in lgalke/bitlinear, examples/node_classification/
# results.csv: mean and standard error.
PUBLISHED = {
  ("cora", "Linear"): (77.07, 0.08),
  ("cora", "AbsMean"): (77.31, 0.20),
  ("cora", "AbsMedian"): (77.46, 0.38),
  ("citeseer", "Linear"): (63.66, 0.09),
  ("citeseer", "AbsMean"): (59.31, 0.93),
  ("citeseer", "AbsMedian"): (61.31, 0.97),
  ("pubmed", "Linear"): (75.63, 0.04),
  ("pubmed", "AbsMean"): (75.22, 0.17),
  ("pubmed", "AbsMedian"): (74.42, 0.13),
}
HERE = pathlib.Path(__file__).parent
RESULTS, TORCH = HERE / "results.jsonl", HERE / "torch.jsonl"

_DATA = flags.DEFINE_string("data", None, "Folder of cora.npz and so on.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.")
_MODELS = flags.DEFINE_list("models", ["sgc", *CONVOLUTIONS], "Which models.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the tables.")  # noqa: FBT003


def cases() -> Iterable[tuple[str, str, str, int]]:
  """Yields model, set, recipe and seed of each run."""
  for name, recipe in itertools.product(SETS, RECIPES):
    kind = "float" if recipe == "float" else "ternary"
    for seed in range(SEEDS[kind]):
      yield "sgc", name, recipe, seed
  for model, recipe in itertools.product(
    CONVOLUTIONS, ("float", "mean", "median")
  ):
    for seed in range(SEEDS["convolution"]):
      yield model, "cora", recipe, seed


def tables() -> str:
  """Returns the results as Markdown."""
  found: dict[tuple[str, ...], list[float]] = {}
  for run in records.load(RESULTS):
    key = (run["config"]["model"]["kind"], run["set"], run["recipe"])
    found.setdefault(key, []).append(100 * run["metrics"]["test/accuracy"])
  torch: dict[tuple[str, ...], list[float]] = {}
  for run in records.load(TORCH):
    key = (run["set"], run["layer"])
    torch.setdefault(key, []).append(100 * run["metrics"]["test/accuracy"])
  rows = [
    "| set | SGC | this package | authors' layer 2.4.6, measured | published |",
    "|---|---|---:|---:|---:|",
  ]
  for name, recipe in itertools.product(SETS, RECIPES):
    layer = RECIPES[recipe][1]
    published = PUBLISHED[name, layer]
    rows.append(
      f"| {name} | {recipe} | {_mean(found.get(('sgc', name, recipe)))} |"
      f" {_mean(torch.get((name, layer)))} |"
      f" {published[0]:.2f} ± {published[1]:.2f} (10) |"
    )
  rows += ["", "| Cora | float | mean | median |", "|---|---:|---:|---:|"]
  for model in CONVOLUTIONS:
    accuracies = [
      _mean(found.get((model, "cora", recipe)))
      for recipe in ("float", "mean", "median")
    ]
    rows.append(f"| {model} | {' | '.join(accuracies)} |")
  return "\n".join(rows)


def _mean(percents):
  """Formats mean, standard error and number of runs."""
  if not percents or len(percents) < 2:
    return ""
  error = statistics.stdev(percents) / len(percents) ** 0.5
  return f"{statistics.mean(percents):.2f} ± {error:.2f} ({len(percents)})"


def run_study(data: str, root: pathlib.Path) -> None:
  """Runs every case that has no record yet."""
  done = {
    (r["config"]["model"]["kind"], r["set"], r["recipe"], r["config"]["seed"])
    for r in records.load(RESULTS)
  }
  for case in cases():
    model, name, recipe, seed = case
    if case in done or model not in _MODELS.value:
      continue
    overrides = {
      "data.source": f"file:{data}/{name}.npz",
      "seed": seed,
      **RECIPES[recipe][0],
    }
    config = runner.load_config(f"{CONFIG}:{model}", overrides)
    folder = root / f"{model}-{name}-{recipe.replace(', ', '-')}-{seed}"
    result = runner.run(config, folder)
    result["config"]["data"]["source"] = f"file:{name}.npz"
    records.append(RESULTS, result | {"set": name, "recipe": recipe})
    shutil.rmtree(folder / "checkpoints")  # A study keeps its results only.


def main(argv):
  """Runs the missing runs, then prints the tables."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    run_study(_DATA.value, pathlib.Path(_WORKDIR.value))
  print(tables())


if __name__ == "__main__":
  program.run(main)
