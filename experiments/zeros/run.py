"""What fraction of ternary weights is zero, at the start and after training?

python experiments/zeros/run.py --scale=cpu --workdir=runs/zeros --workers=2
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import itertools

from bitnet_jax import studies
from bitnet_jax.studies import summaries, zeros
from bitnet_jax.studies.records import ZEROS

SMALL = {"model.hidden": 64, "model.mlp_width": 128, "data.seq_len": 64}
FAMILIES = {  # config, steps of training, other keys
  "mlp": ("digits_mlp", 1200, {}),
  "cnn": ("digits_cnn", 800, {}),
  "vit": ("digits_vit", 800, {"model.hidden": 32, "model.mlp_width": 128}),
  "gnn": ("graphs_gnn:gcn", 1200, {}),
  "encoder": ("pydoc_encoder", 400, {**SMALL, "data.batch_size": 16}),
  "decoder": ("pydoc_decoder", 400, SMALL),
  "encoder_decoder": ("pydoc_encoder_decoder", 400, SMALL),
}
CI = {name: (FAMILIES[name][0], 20, {}) for name in ("mlp", "gnn")}
START = {"total_steps": 1, "optim.learning_rate": 0.0, "optim.warmup_steps": 0}
CURVES = ("train/loss", "valid/loss", ZEROS)
MEASURES = ("b158", "b158_median")


def cases(scale, data):
  """Returns the runs of a scale."""
  books = {"data.source": f"file:{data}/books", "data.tokenizer": "bpe"}
  paper = {"decoder": ("reloaded_decoder:12M", 10_000, books)}
  families = {"ci": CI, "cpu": FAMILIES, "paper": paper}[scale]
  seeds = range(100, 102 if scale == "ci" else 110)  # A pilot had seed 0.
  for family, precision, seed in itertools.product(families, MEASURES, seeds):
    config, steps, others = families[family]
    values = {**others, **studies.PRECISIONS[precision]}
    for trained, length in ((False, START), (True, {"total_steps": steps})):
      every = max(1, length["total_steps"] // 20)
      often = dict.fromkeys(
        ("log_every", "eval_every", "statistics_every"), every
      )
      cell = {"family": family, "precision": precision, "trained": trained}
      yield studies.Case(config, cell, seed, {**values, **often, **length})


def findings(runs):
  """Returns the verdicts on claim 18, with a table and figures."""
  keys = ("family", "precision", "trained")
  table = summaries.table("zeros", "Fraction of zeros", runs, keys, ZEROS)
  verdicts = zeros.judge(runs, claim=18, scale=runs.scale, comparisons=5)
  return studies.Findings(verdicts, [table], zeros.figures(runs))


STUDY = studies.Study(__file__, cases, findings, curves=CURVES)

if __name__ == "__main__":
  program.run(STUDY.main)
