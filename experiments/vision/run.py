"""Do ternary networks match float networks of equal size in vision?

python experiments/vision/run.py --scale=cpu --data=DATA --workdir=runs/vision

README.md has the plan and the findings.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

from bitnet_jax import studies
from bitnet_jax.studies import matching
from bitnet_jax.studies.matching import Net

ALL = tuple(studies.PRECISIONS)
RATES, CNN_RATES, VIT_RATES = (3e-3, 3e-3), (3e-3, 1e-2), (1e-2, 1e-2)
MNIST = {"data.source": "file:{data}/mnist/mnist.npz"}
CIFAR10, CIFAR100 = (
  {
    "data.source": f"file:{{data}}/{name}_subset/{name}_subset.npz",
    "data.random_crop": 0,
    "data.random_flip": False,
    "data.valid_fraction": 0.1,
  }
  for name in ("cifar10", "cifar100")
)
TENTH = MNIST | {"data.train_examples": 6_000, "data.valid_fraction": 1 / 30}
SMALL = {"model.channels": (8, 16, 32), "model.dense_width": 256}
WIDE = CIFAR10 | SMALL | {"model.dense_width": 4096}
WIDE |= {"data.train_examples": 5_000}
HALF = CIFAR10 | SMALL | {"data.train_examples": 10_000}
WHOLE = CIFAR100 | SMALL
VIT = CIFAR10 | {"data.train_examples": 10_000, "optim.warmup_steps": 50}
VIT |= {"model.num_layers": 2, "model.patch": 8, "model.max_length": 16}
# By data, net and epochs; about 20 evaluations each.
CI = {("digits", "mlp", 1): Net("digits_mlp.py", {}, RATES, 10)}
CPU = {
  ("mnist", "mlp", 10): Net("mnist_mlp.py", MNIST, RATES, 223, ALL),
  ("mnist", "mlp", 50): Net("mnist_mlp.py", MNIST, RATES, 1114),
  ("mnist", "cnn", 10): Net("mnist_cnn.py", TENTH, CNN_RATES, 24),
  ("cifar10", "cnn", 10): Net("cifar10_cnn.py", HALF, CNN_RATES, 39),
  ("cifar10", "wide_cnn", 10): Net("cifar10_cnn.py", WIDE, CNN_RATES, 20),
  ("cifar10", "vit", 10): Net("cifar10_vit.py", VIT, VIT_RATES, 39),
  ("cifar100", "cnn", 10): Net("cifar100_cnn.py", WHOLE, CNN_RATES, 36),
}
PAPER = {
  ("mnist", "cnn", 10): Net("mnist_cnn.py", MNIST, CNN_RATES, 222),
  ("cifar10", "cnn", 10): Net("cifar10_cnn.py", CIFAR10, CNN_RATES, 70),
  ("cifar100", "cnn", 10): Net("cifar100_cnn.py", CIFAR100, CNN_RATES, 35),
}
SCALES = {"ci": (2, CI), "cpu": (10, CPU), "paper": (5, PAPER)}


def cases(scale: str, data: str) -> list[studies.Case]:
  """Returns every net in each of its precisions."""
  seeds, nets = SCALES[scale]
  return matching.cases(nets, data=data, seeds=seeds)


def findings(runs: studies.Runs) -> studies.Findings:
  """Returns how ternary nets compare with float nets, and both measures."""
  return matching.findings(
    runs,
    metric="accuracy",
    margins={"digits": 0.5, "mnist": 0.5, "cifar10": 1.0, "cifar100": 1.0},
    chance={"digits": 10.0, "mnist": 10.0, "cifar10": 10.0, "cifar100": 1.0},
    equal=0.5,
  )


STUDY = studies.Study(__file__, cases, findings)

if __name__ == "__main__":
  program.run(STUDY.main)
