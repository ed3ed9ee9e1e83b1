"""Can a small ternary encoder-decoder translate captions into German?

python experiments/translation/run.py --data=DATA/multi30k \
  --workdir=runs/multi30k

Two recipes on Multi30k, scored on test_2016_flickr and compared with the
trivial translation, a copy of the source. Runs in results.jsonl are skipped;
--table only prints the table of the README.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import gzip
import pathlib
import statistics
import sys

from absl import flags

from bitnet_jax.studies import unplanned as study
from bitnet_jax.train.devices.allocation import keep_memory
from bitnet_jax.train.folder import records
from bitnet_jax.train.tasks import scores

CONFIG = "configs/multi30k_encoder_decoder.py"
RECIPES = ("float", "b158")
TEST = "test_2016_flickr"
HERE = pathlib.Path(__file__).parent
RESULTS, COPY = HERE / "results.jsonl", HERE / "copy.jsonl"

_DATA = flags.DEFINE_string("data", None, "Folder of train.en.gz and so on.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Which seeds.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def cases(data: str) -> list[study.Case]:
  """Returns the runs."""
  source = {"data.source": f"file:{data}/{{split}}.{{lang}}.gz"}
  return [
    study.Case(
      f"{recipe}-{seed}",
      CONFIG,
      source | {"quant.recipe": recipe, "seed": int(seed)},
    )
    for seed in _SEEDS.value
    for recipe in RECIPES
  ]


def score_copy(data: pathlib.Path) -> None:
  """Records the scores of the source as its own translation."""
  lines = [
    gzip.open(data / f"{TEST}.{language}.gz", "rt", encoding="utf-8")
    .read()
    .splitlines()
    for language in ("en", "de")
  ]
  metrics = {
    "test/bleu": scores.bleu(*lines),
    "test/chrf": scores.chrf(*lines),
  }
  records.append(COPY, {"case": "copy", "metrics": metrics})


def table() -> str:
  """Returns the results as Markdown."""
  rows = [
    "| recipe | parameters | runs | BLEU | chrF | minutes a run |",
    "|---|---:|---:|---:|---:|---:|",
  ]
  for record in records.load(COPY):
    metrics = record["metrics"]
    rows.append(
      f"| copy of the source | | | {metrics['test/bleu']:.2f} |"
      f" {metrics['test/chrf']:.2f} | |"
    )
  runs = records.group(records.load(RESULTS), "quant.recipe")
  for (recipe,), found in runs.items():
    means = [
      statistics.mean(run["metrics"][f"test/{name}"] for run in found)
      for name in ("bleu", "chrf")
    ]
    minutes = statistics.median(run["wall_time_s"] for run in found) / 60
    rows.append(
      f"| `{recipe}` | {found[0]['num_params']:,} | {len(found)} |"
      f" {means[0]:.2f} | {means[1]:.2f} | {minutes:.0f} |"
    )
  return "\n".join(rows)


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    keep_memory()
    if not records.load(COPY):
      score_copy(pathlib.Path(_DATA.value))
    root = pathlib.Path(_WORKDIR.value)
    study.run_missing(cases(_DATA.value), RESULTS, root)
  print(table())


if __name__ == "__main__":
  program.run(main)
