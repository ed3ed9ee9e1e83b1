"""Are ternary encoder-decoders worse, whatever their width?

python experiments/encoder_decoder/run.py --data=DATA --workdir=runs/encdec
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import itertools
from typing import Any

from bitnet_jax import studies
from bitnet_jax.analysis import verdicts
from bitnet_jax.studies import comparisons, summaries, widths

MAIN = ("float32", "b158", "b158_median")
TOKENS = "tokenizers/small_unigram_1000.sentencepiece.model"
SIZES: dict[str, Any] = {"model.num_heads": 2, "model.num_kv_heads": 2}
SIZES |= {"optim.learning_rate": 0.005, "optim.warmup_steps": 50}
SMOKE = {"optim.warmup_steps": 2, "total_steps": 8, "data.seq_len": 32}
SMOKE |= {"data.tokenizer": "bytes", "data.vocab_size": None}
PAIRS = SIZES | {"data.tokenizer": "bpe", "data.vocab_size": 1000}
PAIRS |= {"data.input_len": 32, "data.target_len": 32, "model.dropout": 0.0}
PAIRS |= {"task.label_smoothing": 0.0, "task.num_beams": 1, "total_steps": 600}
PAIRS["data.batch_size"] = 32
BOOKS: dict[str, Any] = SIZES | {"data.vocab_size": None, "data.seq_len": 64}
BOOKS |= {"data.hold_out": "ends", "data.valid_fraction": 0.04}
BOOKS |= {"data.test_fraction": 0.0, "data.batch_size": 8, "total_steps": 1500}
# Config, values, precisions, widths and seeds by data set of each scale.
GRIDS: dict[str, dict[str, Any]] = {
  "ci": {"pydoc": ("pydoc", SIZES | SMOKE, MAIN[:2], (8, 16), 2)},
  "cpu": {
    "books": ("pydoc", BOOKS, MAIN, (16, 32, 64), 10),
    "multi30k": ("multi30k", PAIRS, MAIN[:2], (32, 64), 10),
  },
  "paper": {"c4": ("t5", {}, MAIN, (384, 768, 1536), 5)},
}
CLAIM: dict[str, Any] = {"claim": 13, "margin": 0.02, "comparisons": 3}
BETTER = CLAIM | {"better": "lower", "combine": "all", "unit": "nats"}
LOSS: dict[str, Any] = {"metric": "valid/loss", "diverged": 6.9}  # ln 1,000


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns encoder-decoders of each width."""
  books = {"data.source": f"file:{data}/books/valid.txt.xz"}
  books["data.tokenizer"] = f"sentencepiece:{data}/{TOKENS}"
  captions = {"data.source": f"file:{data}/multi30k/{{split}}.{{lang}}.gz"}
  sources, found = {"books": books, "multi30k": captions}, []
  for corpus, (config, values, *grid, seeds) in GRIDS[scale].items():
    for precision, width in itertools.product(*grid):
      sizes = values | sources.get(corpus, {}) | studies.PRECISIONS[precision]
      sizes |= {"model.hidden": width, "model.mlp_width": 2 * width}
      path = f"configs/{config}_encoder_decoder.py"
      cell = {"data": corpus, "precision": precision, "width": width}
      found += [studies.Case(path, cell, i, sizes) for i in range(seeds)]
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns losses by width, and whether width makes up for 1.58 bits."""
  about = CLAIM | {"metric": "valid/loss", "worst": 6.9, "bounds": (1.5, 2.5)}
  judged, shown = [], widths.findings(runs, **about)
  for times in (1, 2) if runs.scale == "ci" else (1, 2, 4):
    text = f"float32 is better than b158 of {times} times the width"
    cells = comparisons.wider(runs, *MAIN[:2], times, **LOSS)
    about = BETTER | {"statement": text, "scale": runs.scale}
    judged.append(verdicts.verdict("better", cells, **about))
  tables = [*shown.tables]
  if "multi30k" in runs.choices("data"):
    pairs, keys = runs.where(data="multi30k"), ("precision", "width")
    tables.append(summaries.table("bleu", "BLEU", pairs, keys, "test/bleu"))
  return studies.Findings(judged, tables, shown.figures)


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
