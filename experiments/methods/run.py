"""Do 1.58-bit networks beat earlier methods of quantization?

python experiments/methods/run.py --data=DATA --workdir=runs/methods

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from typing import Any

from bitnet_jax import studies
from bitnet_jax.studies import families

RATES = (0.003, 0.01)
SMALLER, LARGER = ("binary", "twn"), ("int4", "int8")
TRAINED: dict[str, dict[str, Any]] = {
  name: {"quant.recipe": name}
  for name in ("b158", "b158_median", *SMALLER, *LARGER, "float")
}
TRAINED["float_norm"] = {"quant.recipe": "float", "quant.norm": "layer_norm"}
# How a trained "float_norm" is rounded, by a step that changes no parameter.
ROUNDED = {"rounded_mean": "b158", "rounded_median": "b158_median"}
AS_IT_IS: dict[str, Any] = {
  **{"total_steps": 1, "total_epochs": None, "eval_every": 1},
  **{"optim.learning_rate": 0.0, "optim.warmup_steps": 0},
}
# What is left out in the smoke test.
ABOUT: dict[str, Any] = {"claim": 19, "comparisons": 4}
SKIPPED = {"ci": ("b158_median", "twn", "int8", "float", "rounded_median")}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns all methods at both rates; those that round come after others."""
  found, skipped = [], SKIPPED.get(scale, ())
  known = families.families(scale, data)
  for family in [known["mlp"]] if scale == "ci" else known.values():
    for seed in families.SEEDS[scale]:
      for rate in RATES[-1:] if scale == "ci" else RATES:
        cell = {"precision": "float_norm", "rate": rate}
        after = {"init_from": family.case(cell, seed, {}).name}
        for name, values in TRAINED.items():
          values = {**values, "optim.learning_rate": rate}
          found.append(family.case({**cell, "precision": name}, seed, values))
        for name, recipe in ROUNDED.items():
          values = {**AS_IT_IS, "quant.recipe": recipe}
          cell = {**cell, "precision": name}
          found.append(family.case(cell, seed, values, after))
  return [case for case in found if case.cell["precision"] not in skipped]


def findings(runs: studies.Runs) -> studies.Findings:
  """Compares b158 with each other method, each at its best rate."""
  known, verdicts, shown = families.families(runs.scale), [], {}
  best = families.at_best_rates(runs, "precision")
  for rule, others in (("better", (*SMALLER, *ROUNDED)), ("no worse", LARGER)):
    cells = {
      f"family={f}, precision={m}": known[f].pair(best[f, "b158"], other)
      for (f, m), other in best.items()
      if m in others
    }
    statement = f"b158 is {rule} than {', '.join(others)}"
    verdicts += families.judge(rule, cells, statement, runs.scale, **ABOUT)
    shown |= cells
  title = "Test accuracy or loss of each method at its best rate"
  table = families.table(title, "precision", best)
  figures = families.figures("b158 minus other methods", shown, runs.scale)
  return studies.Findings(verdicts=verdicts, tables=[table], figures=figures)


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
