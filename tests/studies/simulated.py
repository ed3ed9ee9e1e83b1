"""Runs that are simulated rather than trained, for tests of findings."""

from bitnet_jax.studies.runs import Run, Runs


def run(seed, *, diverged=None, curves=None, cell=None, **metrics):
  """Returns a run with metrics by name, with "_" in place of the first "/"."""
  named = {key.replace("_", "/", 1): value for key, value in metrics.items()}
  record = {
    "case": f"{cell}, {seed}",
    "cell": cell or {},
    "seed": seed,
    "scale": "cpu",
    "diverged": diverged,
    "metrics": {} if diverged is not None else named,
    "curves": curves or {},
    "best": None,
    "layers": {},
    "step": 10,
    "epochs": 1.0,
  }
  return Run(record)


def noise(seed):
  """Returns a small number that belongs to a seed."""
  return 0.001 * ((7 * seed) % 5 - 2)


def runs(cells, seeds=6):
  """Returns runs of pairs of a cell and its validation loss."""
  return Runs(
    run(seed, cell=cell, valid_loss=loss + noise(seed))
    for cell, loss in cells
    for seed in range(seeds)
  )
