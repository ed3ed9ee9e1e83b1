"""How many times wider must a ternary decoder be?

python experiments/lm_width/run.py --data=DATA --workdir=runs/lm_width

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from itertools import product
from math import log
from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import widths

MAIN = ("float32", "b158", "b158_median")
# The learning rate is this number over the width.
RATES = {"float32": 0.25, "bfloat16": 0.25, "float32_norm": 0.4}
RATES |= {"b158": 0.4, "b158_median": 0.4}
NORM = {**studies.PRECISIONS["float32"], "quant.norm": "layer_norm"}
PRECISIONS = {**studies.PRECISIONS, "float32_norm": NORM}
# Corpus, precisions, widths, seeds and steps of each scale.
GRIDS = {
  "ci": [("xor", MAIN[:2], (8, 16), 2, 4)],
  "cpu": [
    ("books", MAIN, (32, 64, 128, 256), 10, 600),
    ("books", ("float32_norm",), (32, 64, 128), 10, 600),
    ("books", ("bfloat16",), (64,), 10, 600),
    ("wikitext2", MAIN[:2], (32, 64, 128), 10, 600),
  ],
  "paper": [("books", (*RATES,), (32, 64, 128, 256, 512), 5, None)],
}
VARIANTS = {32: "6M", 64: "12M", 128: "24M", 256: "48M", 512: "100M"}
SHARED: dict[str, Any] = {
  **{"data.vocab_size": 512, "data.seq_len": 64, "data.batch_size": 8},
  **{"data.hold_out": "ends", "data.valid_fraction": 0.04},
  **{"data.test_fraction": 0.0, "steps_per_dispatch": 50},
  **{"data.eval_batch_size": 64, "checkpoint.keep_best": 0},
  **{"model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 2},
  **{"eval_every": 150, "log_every": 50, "optim.warmup_steps": 50},
}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns decoders of each width in each precision."""
  found = []
  for corpus, precisions, hidden, seeds, steps in GRIDS[scale]:
    for precision, width in product(precisions, hidden):
      config = "configs/pydoc_decoder.py"
      sizes = {"model.hidden": width, "model.mlp_width": 2 * width, **SHARED}
      rate = RATES[precision] / width
      sizes |= {"total_steps": steps, "optim.learning_rate": rate}
      sizes["data.source"] = f"file:{data}/{corpus}/valid.txt.xz"
      if scale == "ci":
        config = "configs/xor_mlp.py"
        sizes = {"model.width": width, "total_steps": steps, "eval_every": 2}
      elif scale == "paper":
        config = f"configs/reloaded_decoder.py:{VARIANTS[width]}"
        sizes = {"data.source": f"file:{data}/books/{{split}}.txt.xz"}
      sizes |= PRECISIONS[precision]
      cell = {"data": corpus, "precision": precision, "width": width}
      found += [studies.Case(config, cell, i, sizes) for i in range(seeds)]
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns losses by width, and how many times wider ternary nets must be."""
  further = (512, 1536, 3072)
  return widths.findings(runs, claim=1, worst=log(512), further=further)


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
