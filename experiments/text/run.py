"""Does a wide MLP over subword tokens keep its accuracy with a ternary head?

python experiments/text/run.py --data=DATA --workdir=runs/text
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import functools
import itertools
import math
from typing import Any

from bitnet_jax import studies
from bitnet_jax.analysis import estimates, pairs, verdicts
from bitnet_jax.studies import comparisons

MAIN = ("float32", "b158", "b158_median")
FILES = {"20ng": "20ng.clean", "mr": "mr.raw", "ohsumed": "ohsumed.raw"}
FILES |= {"r52": "R52.raw", "r8": "R8.raw"}
VOCABULARY = "tokenizers/bert_base_uncased_vocab.txt"
SMOKE = {"data.tokenizer": "bytes", "data.vocab_size": None, "total_steps": 16}
SMOKE |= {"data.special_tokens": False, "model.width": 16}
# Shorter and narrower than the authors', with larger batches.
SHORT = {"total_epochs": 10, "data.batch_size": 64, "model.width": 256}
SHORT |= {"optim.learning_rate": 0.03, "statistics_every": 0}
# Values, data sets and seeds of each scale.
GRIDS: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
  "ci": (SMOKE, ("docstrings",), 2),
  "cpu": (SHORT, tuple(FILES), 10),
  "paper": ({}, tuple(FILES), 5),
}
BOUNDS: dict[str, Any] = {"claim": 9, "bounds": (0.98, math.inf)}
BOUNDS["comparisons"] = 2
KEYS, METRIC = ("data",), "test/accuracy"


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns each data set in each precision."""
  sizes, names, seeds = GRIDS[scale]
  found = []
  for name, precision in itertools.product(names, MAIN):
    config, values = "configs/docstrings_mlp.py", {}
    if name in FILES:
      config = f"configs/text_mlp.py:{name}"
      values["data.source"] = f"textgcn:{data}/text_gcn/{FILES[name]}"
      values["data.tokenizer"] = f"bert:{data}/{VOCABULARY}"
    values |= {**sizes, **studies.PRECISIONS[precision]}
    cell = {"data": name, "precision": precision}
    found += [studies.Case(config, cell, i, values) for i in range(seeds)]
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns which fraction of the accuracy is kept, and what is lost."""
  compare = functools.partial(
    comparisons.compare, keys=KEYS, metric=METRIC, diverged=0, factor=100
  )
  full, mean, median = ({"precision": name} for name in MAIN)
  judged, lost = [], {}
  for side in (mean, median):
    cells = lost[side["precision"]] = compare(runs, side, full)
    kept = estimates.ratio_of_means(pairs.average(cells.values()))
    text = f"{side['precision']} keeps at least 98 % of the accuracy"
    about = BOUNDS | {"statement": text, "scale": runs.scale}
    judged.append(verdicts.verdict("in range", kept, **about))
  text = "the median is no worse than the mean in most data sets"
  about = {"claim": 11, "statement": text, "combine": "most"}
  both = compare(runs, median, mean)
  judged.append(comparisons.no_worse(runs, both, margin=0.5, **about))
  table, bars = comparisons.shown(runs, lost, keys=KEYS, metric=METRIC)
  return studies.Findings(judged, [table], [bars])


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
