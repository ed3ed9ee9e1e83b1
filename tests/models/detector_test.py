"""The detector: parameters, and the size of its grid."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from bitnet_jax.models import registry
from bitnet_jax.models.detector import BOX_OUTPUTS, Detector, DetectorConfig

CONFIG = DetectorConfig(channels=(4, 8), width=16, num_classes=3)


def test_parameters_are_those_of_the_golden_file(check_golden):
  model = Detector(CONFIG, (("head", "float"), (".*", "b158")))
  check_golden("detector", model, jnp.zeros((1, 8, 12, 1)))


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 4)])
def test_a_cell_has_as_many_pixels_as_the_blocks_pool(height, width):
  x = jnp.zeros((2, height, width, 1))
  model = Detector(CONFIG, "b158")
  y, variables = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), x)
  )
  assert y.shape == (2, height // 4, width // 4, BOX_OUTPUTS + 3)
  variables = nn.unbox(variables)
  args, _ = registry.example_call(model, variables["params"])
  assert jax.eval_shape(model.apply, variables, *args).shape[1:3] == (1, 1)
