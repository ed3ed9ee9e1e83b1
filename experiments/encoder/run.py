"""Must a ternary encoder be twice as wide?

python experiments/encoder/run.py --data=DATA --workdir=runs/encoder
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import itertools
from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import tuning, widths

MAIN = ("float32", "b158", "b158_median")
METRICS = {"sst2": "test/accuracy", "stsb": "test/pearson"}
GLUE, METRICS["docstrings"] = tuple(METRICS), "test/accuracy"
# Precisions, widths, seeds, blocks (and heads), steps of each training, tasks.
GRIDS: dict[str, Any] = {
  "ci": (MAIN[:2], (8, 16), 2, 1, 4, 4, ("docstrings",)),
  "cpu": (MAIN, (16, 32, 64), 10, 2, 1500, 400, GLUE),
  "paper": (MAIN, (384, 768, 1536), 5, 12, 100_000, 10_000, GLUE),
}
TOKENS = "tokenizers/small_unigram_1000.sentencepiece.model"
BOTH = {"data.vocab_size": None, "data.lowercase": None, "statistics_every": 0}
BOTH |= {"model.max_length": 64, "data.batch_size": 16, "eval_every": 250}
PRETRAINING = {"data.hold_out": "ends", "data.valid_fraction": 0.04}
PRETRAINING |= {"optim.learning_rate": 0.003}
SMOKE = {"data.source": "embedded:pydoc", "data.documents": None}
DEPTHS = ("model.num_layers", "model.num_heads", "model.num_kv_heads")
TUNING = {"optim.learning_rate": 0.002}
DOCUMENTS: dict[str, Any] = {"data.source": "embedded:docstrings"}
DOCUMENTS |= {"data.valid_fraction": 0.1, "data.test_fraction": 0.1}
FURTHER = {"stsb": {"data.label": "score"}, "docstrings": DOCUMENTS}
CLAIM: dict[str, Any] = {"claim": 12, "comparisons": 4}
LOSS = {"metric": "valid/loss", "margin": 0.02, "bounds": (1.5, 2.5)}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns encoders of each width, and those that start from them."""
  names, hidden, seeds, blocks, steps, fewer, tasks = GRIDS[scale]
  corpus, source = "books", {"data.source": f"file:{data}/books/valid.txt.xz"}
  found, tokens = [], f"sentencepiece:{data}/{TOKENS}"
  if scale == "ci":
    corpus, tokens, source = "pydoc", "bytes", SMOKE
  for name, width, seed in itertools.product(names, hidden, range(seeds)):
    both = {**BOTH, **studies.PRECISIONS[name], "data.tokenizer": tokens}
    both |= {"model.hidden": width, "model.mlp_width": 2 * width}
    both |= dict.fromkeys(DEPTHS, blocks) | {"optim.warmup_steps": steps // 15}
    values = both | PRETRAINING | source | {"total_steps": steps}
    cell = {"data": corpus, "precision": name, "width": width}
    config = "configs/wikitext2_encoder.py"
    found.append(studies.Case(config, cell, seed, values))
    start = {"init_from": found[-1].name}
    for task in tasks if name in MAIN[:2] and width > hidden[0] else ():
      path = f"file:{data}/glue_small/{task}_{{split}}.tsv.gz"
      values = both | TUNING | {"data.source": path, "total_steps": fewer}
      values |= FURTHER.get(task, {})
      config = f"configs/glue_encoder.py:{task if task in GLUE else 'sst2'}"
      cell = {"task": task, "precision": name, "width": width}
      found.append(studies.Case(config, cell, seed, values, start))
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns losses by width, and scores of the tasks."""
  masked = runs.where(data=runs.choices("data"))
  found = widths.findings(masked, worst=6.9, **LOSS, **CLAIM)
  tuned = runs.where(task=runs.choices("task"))
  scores = tuning.findings(tuned, METRICS, margin=1.0, **CLAIM)
  return tuning.joined(found, scores)


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
