"""How many hidden units does X-OR need at 1.58 bits?

python experiments/xor/run.py --scale=cpu --workdir=runs/xor --workers=2
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import functools
import itertools

from bitnet_jax import studies
from bitnet_jax.studies import noise, successes

SIZES = {  # widths, rates, seeds, steps
  "ci": ((2, 8), (0.01,), 2, 20),
  "cpu": ((1, 2, 3, 4, 6, 8, 16, 32), (0.001, 0.01, 0.1), 50, 3000),
  "paper": ((2, 4, 8, 16, 32), (0.001, 0.01, 0.1), 50, 50_000),
}
TERNARY = ("b158", "b158_median")
SEEDS = range(100, 150)  # Pilots had others.


def cases(scale, data):
  """Returns the runs of a scale."""
  widths, rates, seeds, steps = SIZES[scale]
  grid = itertools.product(widths, rates, studies.PRECISIONS, SEEDS[:seeds])
  for hidden, rate, precision, seed in grid:
    cell = {"hidden": hidden, "rate": rate, "precision": precision}
    values = {"optim.learning_rate": rate, "model.width": hidden}
    values |= {"statistics_every": 0, "steps_per_dispatch": min(steps, 100)}
    values |= dict.fromkeys(("total_steps", "log_every", "eval_every"), steps)
    values |= {**studies.PRECISIONS[precision], "checkpoint_every": steps}
    yield studies.Case("xor_mlp", cell, seed, values)


def findings(runs):
  """Returns the verdicts on claims 7 and 8, with tables and figures."""
  solved = successes.at_best_rates(
    runs, "test/accuracy", 1.0, chosen_by="valid/accuracy"
  )
  about = {"scale": runs.scale, "comparisons": 2}
  verdicts = [
    successes.wider(solved["float32"], solved[p], 1.25, claim=7, **about)
    for p in TERNARY
  ]
  wide = [h for h in runs.choices("hidden") if h >= 8]
  usual = runs.where(rate=0.01, precision=TERNARY)
  used = noise.used(usual.where(hidden=wide), "hidden")
  verdicts += noise.judge(used, *TERNARY, claim=8, **about)
  figures = [
    successes.figure(solved.values(), "Runs that solve X-OR"),
    noise.figure(noise.used(usual, "hidden"), "Input weights at rate 0.01"),
  ]
  return studies.Findings(verdicts, successes.tables(solved.values()), figures)


STUDY = studies.Study(
  __file__,
  cases,
  findings,
  curves=(),
  measure=functools.partial(noise.measure, signals=2),
)

if __name__ == "__main__":
  program.run(STUDY.main)
