"""Mean or median: which scale should ternary weights have?

python experiments/measure/run.py --findings

It has no runs of its own but at --scale=ci: it reads the records of the other
studies. README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax import studies
from bitnet_jax.studies import measures


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns small runs of exclusive or for "ci", else none."""
  del data
  if scale != "ci":
    return []
  path, short = "configs/xor_mlp.py", {"total_steps": 4, "eval_every": 2}
  return [
    studies.Case(path, {"precision": name}, seed, {**short, **changes})
    for name, changes in studies.PRECISIONS.items()
    for seed in range(2)
    if name in (measures.MEAN, measures.MEDIAN)
  ]


STUDY = studies.Study(__file__, cases, measures.findings, others=True)

if __name__ == "__main__":
  program.run(STUDY.main)
