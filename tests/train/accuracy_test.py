"""The networks of the configs learn what they should; a few minutes."""

import pytest

from bitnet_jax.train import runner
from tests.train.conftest import CONFIGS

SEEDS = (0, 1, 2)
DIGITS = 0.97  # What the first command of the README must reach.
POINTS = 0.02  # How far from full precision it may be.
# One epoch with 95 % of the training set; ten reach 99.3 %.
MNIST_AFTER_AN_EPOCH = 0.98
CHANCE_XOR = 0.5


def accuracy(folder, config_name, **overrides):
  overrides = {k.replace("__", "."): v for k, v in overrides.items()}
  config = runner.load_config(str(CONFIGS / f"{config_name}.py"), overrides)
  return runner.run(config, folder)["metrics"]["test/accuracy"]


@pytest.fixture(scope="module", autouse=True)
def optimizations():
  """These tests run the program that users run."""
  import jax

  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.parametrize("config_name", ["digits_mlp", "digits_cnn"])
def test_digits_are_read_as_well_as_in_float(config_name, tmp_path):
  found = {
    (recipe, seed): accuracy(
      tmp_path / f"{recipe}-{seed}",
      config_name,
      quant__recipe=recipe,
      seed=seed,
      mesh__data=1,
    )
    for recipe in ("float", "b158", "b158_median")
    for seed in SEEDS
  }
  print(config_name, found)
  for (recipe, seed), value in found.items():
    assert value >= found["float", seed] - POINTS, (recipe, seed)
    if recipe != "float":
      assert value >= DIGITS, (recipe, seed)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["b158", "b158_median"])
def test_cnn_reads_mnist_after_an_epoch(recipe, tmp_path, data_dir):
  source = f"file:{data_dir / 'mnist' / 'mnist.npz'}"
  assert (
    accuracy(
      tmp_path,
      "mnist_cnn",
      data__source=source,
      quant__recipe=recipe,
      total_epochs=1,
      mesh__data=1,
    )
    >= MNIST_AFTER_AN_EPOCH
  )


@pytest.mark.slow
def test_ternary_network_solves_exclusive_or(tmp_path):
  assert accuracy(tmp_path, "xor_mlp", total_epochs=100) > CHANCE_XOR + 0.4
