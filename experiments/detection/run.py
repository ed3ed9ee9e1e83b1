"""Does a ternary detector of small objects match a float detector?

python experiments/detection/run.py --scale=cpu --workdir=runs/detection

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax import studies
from bitnet_jax.studies import matching
from bitnet_jax.studies.matching import Net

CONFIG = "digits_detector.py"
RATES = (3e-3, 1e-2)
NORM = {"model.batch_norm": True}
TINY = {
  "data.canvas": 16,
  "data.object_sizes": (4, 8),
  "model.channels": (4, 4),
  "model.convs_per_block": 1,
  "model.width": 8,
}
MNIST = {
  "data.source": "file:{data}/mnist/mnist.npz",
  "data.canvas": 96,
  "data.object_sizes": (16, 32),
}
# Seeds, and nets by data, name and epochs; 20 evaluations each.
SCALES = {
  "ci": (2, {("digits", "tiny", 2): Net(CONFIG, TINY, RATES, 20)}),
  "cpu": (
    10,
    {
      ("digits", "plain", 40): Net(CONFIG, {}, RATES, 40),
      ("digits", "batch_norm", 40): Net(CONFIG, NORM, RATES, 40),
    },
  ),
  "paper": (
    5,
    {("mnist", "plain", 10): Net(f"{CONFIG}:B", MNIST, RATES, 445)},
  ),
}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns the detector in each precision."""
  seeds, nets = SCALES[scale]
  return matching.cases(nets, data=data, seeds=seeds)


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns how ternary detectors compare with float ones, and the measures."""
  return matching.findings(
    runs,
    metric="map50",
    margins={"digits": 1.0, "mnist": 1.0},
    chance={"digits": 0.0, "mnist": 0.0},
    equal=1.0,
    claims=("detection-1", "detection-2", "detection-3"),
  )


CURVES = ("train/loss", "valid/loss", "valid/map50")
STUDY = studies.Study(__file__, cases, findings, curves=CURVES)

if __name__ == "__main__":
  program.run(STUDY.main)
