"""Mean or median: which scale should ternary weights have?

python experiments/measure/run.py --findings

It has no runs of its own but at --scale=ci: it reads the records of the other
studies. README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import itertools

from bitnet_jax import studies
from bitnet_jax.studies import measures


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns small runs of exclusive or for "ci", else none."""
  del data
  widths, seeds = ((4, 8), range(2)) if scale == "ci" else ((), ())
  names = (measures.MEAN, measures.MEDIAN)
  found = []
  for width, name, seed in itertools.product(widths, names, seeds):
    cell = {"hidden": width, "precision": name}
    changes = {"model.width": width, "total_steps": 4, "eval_every": 4}
    changes |= studies.PRECISIONS[name]
    found.append(studies.Case("configs/xor_mlp.py", cell, seed, changes))
  return found


STUDY = studies.Study(__file__, cases, measures.findings, others=True)

if __name__ == "__main__":
  program.run(STUDY.main)
