"""What does pre-training give a small ternary encoder on SST-2?

python experiments/fine_tuning/run.py --data=DATA --workdir=runs/sst2

DATA holds the folders wikitext2 and glue_small. Under each of two recipes, an
encoder is pre-trained on WikiText-2 and fine-tuned on SST-2, and the same
encoder is trained on SST-2 from scratch with the same vocabulary. Classes are
predicted from the mean of the tokens, or from the first token. The baseline is
TF-IDF with logistic regression. Reports accuracy on the dev and test splits.
Runs in results.jsonl are skipped; --table only prints the table of the README.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import itertools
import pathlib
import sys

from absl import flags

from bitnet_jax.data.views import labeled_texts
from bitnet_jax.studies import unplanned as study
from bitnet_jax.train.devices.allocation import keep_memory
from bitnet_jax.train.folder import records

PRETRAINING = "configs/wikitext2_encoder.py"
FINE_TUNING = "configs/glue_encoder.py:sst2"
RECIPES = ("float", "b158")
# Pooling, and the learning rate with it.
POOLINGS = {"mean": 1e-3, "first": 5e-4}
HERE = pathlib.Path(__file__).parent
RESULTS, BASELINE = HERE / "results.jsonl", HERE / "tfidf.jsonl"

_DATA = flags.DEFINE_string("data", None, "Folder of the data sets.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Which seeds of the fine-tuning.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def cases(data: pathlib.Path, root: pathlib.Path) -> list[study.Case]:
  """Returns the runs; a pre-training precedes the runs that start from it."""
  found = []
  text = f"file:{data}/wikitext2/{{split}}.txt.xz"
  source = f"file:{data}/glue_small/sst2_{{split}}.tsv.gz"
  for recipe in RECIPES:
    name = f"pretraining-{recipe}"
    found.append(
      study.Case(
        name, PRETRAINING, {"data.source": text, "quant.recipe": recipe}
      )
    )
    for (pooling, rate), seed in itertools.product(
      POOLINGS.items(), _SEEDS.value
    ):
      overrides = {
        "data.source": source,
        "data.tokenizer": f"tokenizers:{root / name / 'tokenizer.json'}",
        "data.vocab_size": None,
        "data.lowercase": None,
        "model.pooling": pooling,
        "optim.learning_rate": rate,
        "quant.recipe": recipe,
        "seed": int(seed),
      }
      tuned = overrides | {"init_from": str(root / name)}
      run = f"{pooling}-{recipe}-{seed}"
      found += [
        study.Case(f"pretrained-{run}", FINE_TUNING, tuned),
        study.Case(f"scratch-{run}", FINE_TUNING, overrides),
      ]
  return found


def run_baseline(data: pathlib.Path) -> None:
  """Records TF-IDF of words and word pairs with logistic regression."""
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline

  corpus = labeled_texts.load(
    f"file:{data}/glue_small/sst2_{{split}}.tsv.gz", columns=("sentence",)
  )
  model = make_pipeline(
    TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000)
  )
  train, valid = corpus.splits["train"], corpus.splits["valid"]
  model.fit(train.texts[0], train.labels)
  accuracy = model.score(valid.texts[0], valid.labels)
  record = {"case": "TF-IDF", "metrics": {"valid/accuracy": accuracy}}
  records.append(BASELINE, record)


def table() -> str:
  """Returns the results as Markdown."""
  rows = [
    "| model | classes from | recipe | runs | dev accuracy | test accuracy"
    " | minutes |",
    "|---|---|---|---:|---:|---:|---:|",
  ]
  rows += [
    "| TF-IDF and logistic regression | | | |"
    f" {study.percent([r['metrics']['valid/accuracy']])} | | |"
    for r in records.load(BASELINE)
  ]
  results = records.load(RESULTS)
  for pooling, start, recipe in itertools.product(
    POOLINGS, ("scratch", "pretrained"), RECIPES
  ):
    case = f"{start}-{pooling}-{recipe}-"
    runs = [r for r in results if r["case"].startswith(case)]
    if runs:
      dev, test = (
        study.percent(r["metrics"][f"{split}/accuracy"] for r in runs)
        for split in ("valid", "test")
      )
      minutes = sum(r["wall_time_s"] for r in runs) / 60 / len(runs)
      rows.append(
        f"| encoder, {start} | {pooling} | `{recipe}` | {len(runs)} | {dev} |"
        f" {test} | {minutes:.0f} |"
      )
  return "\n".join(rows)


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    keep_memory()
    data, root = pathlib.Path(_DATA.value), pathlib.Path(_WORKDIR.value)
    if not records.load(BASELINE):
      run_baseline(data)
    study.run_missing(cases(data, root), RESULTS, root)
  print(table())


if __name__ == "__main__":
  program.run(main)
