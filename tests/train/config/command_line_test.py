"""What a command line requested, for the records of a run."""

import pytest
from absl import flags as absl_flags
from ml_collections import config_flags

from bitnet_jax.train.config import command_line
from tests.train.conftest import CONFIGS


# ml_collections loads the file so.
@pytest.mark.filterwarnings(
  r"ignore:the load_module\(\) method:DeprecationWarning"
)
def test_origin_is_that_of_the_command_line(monkeypatch):
  values = absl_flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, "", values)
  monkeypatch.setattr(command_line.absl_flags, "FLAGS", values)
  path = f"{CONFIGS / 'digits_mlp.py'}"
  argv = [
    "experiments/train.py",
    f"--config={path}:B",
    "--config.quant.recipe=float",
    "--config.optim.clip_norm",
    "0.5",
    "--workdir=runs/a b",
  ]
  monkeypatch.setattr("sys.argv", argv)
  values(argv[:-1])
  found = command_line.origin()
  assert found.command.startswith("python experiments/train.py --config=")
  assert found.command.endswith("'--workdir=runs/a b'")
  assert (found.config_file, found.variant) == (path, "B")
  assert found.overrides == {"quant.recipe": "float", "optim.clip_norm": 0.5}
