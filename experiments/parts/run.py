"""What does each part of a ternary layer contribute?

python experiments/parts/run.py --data=DATA --workdir=runs/parts

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import families

RATES = (0.003, 0.01)
BASELINE, LEAK = "b158", "norm_all"
# In the order of the claims: parts-1 changes the first one.
PARTS: dict[str, dict[str, Any]] = {
  "norm_none": {"quant.norm": "none"},
  "norm_rms": {"quant.norm": "rms_norm"},
  LEAK: {"quant.norm": "layer_norm_all"},
  "acts_6": {"quant.acts.range": (-32, 31)},
  "acts_4": {"quant.acts.range": (-8, 7)},
  # Only weights are ternary.
  "acts_float": {"quant.recipe": "trilm", "quant.norm": "layer_norm"},
  "scale_channel": {"quant.weights.scale": "channel"},
  "clipped": {"quant.ste": "clipped"},
  "stochastic": {"quant.weights.rounding": "stochastic"},
  "bfloat16": {"model.param_dtype": "bfloat16"},
}
SMOKE = {"mlp": {BASELINE, *PARTS}, "decoder": {BASELINE, LEAK}}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns the baseline and each changed part, at both rates."""
  found = []
  for name, family in families.families(scale, data).items():
    for part, values in {BASELINE: {}, **PARTS}.items():
      # Only tokens can leak; and each part compiles a program of its own.
      if part == LEAK and name != "decoder":
        continue
      if scale == "ci" and (name == "cnn" or part not in SMOKE[name]):
        continue
      for seed in families.SEEDS[scale]:
        for rate in RATES[-1:] if scale == "ci" else RATES:
          changes = {**values, "optim.learning_rate": rate}
          cell = {"part": part, "rate": rate}
          found.append(family.case(cell, seed, changes))
  return found


def findings(runs: studies.Runs) -> studies.Findings:
  """Compares each part with the baseline, both at their best rates."""
  known, verdicts, shown = families.families(runs.scale), [], {}
  best = families.at_best_rates(runs, "part")
  for number, part in enumerate(PARTS, 1):
    cells = {
      f"family={f}, part={part}": known[f].pair(other, best[f, BASELINE])
      for (f, p), other in best.items()
      if p == part
    }
    rule, count = ("better", 1) if part == LEAK else ("no worse", 2)
    about = {"claim": f"parts-{number}", "comparisons": count}
    text = f"b158 with {part} is {rule} than b158"
    verdicts += families.judge(rule, cells, text, runs.scale, **about)
    shown |= cells
  title = "Test accuracy or loss with each part at its best rate"
  table = families.table(title, "part", best)
  figures = families.figures("Changed parts minus b158", shown, runs.scale)
  return studies.Findings(verdicts=verdicts, tables=[table], figures=figures)


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
