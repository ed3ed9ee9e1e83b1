"""``--help``: examples, flags, and the keys of a config, on one screen."""

import json
import subprocess
import sys

import pytest
from absl import flags as absl_flags

from bitnet_jax.train.config import help as helps
from tests.train.conftest import ROOT

MODULE = __name__
# Programs define flags of the same name, so one is forgotten before the next.
ALL = """
import importlib, json, pkgutil
from absl import flags
from bitnet_jax import commands
from bitnet_jax.train.config import help

texts = []
for module in pkgutil.iter_modules(commands.__path__):
  name = f"bitnet_jax.commands.{module.name}"
  importlib.import_module(name)
  texts.append(help.describe(name))
  own = list(flags.FLAGS.flags_by_module_dict().get(name, ()))
  for flag in own:
    delattr(flags.FLAGS, flag.name)
print(json.dumps(texts))
"""
absl_flags.DEFINE_string("a_test_text", "some", "A text of several words.")
absl_flags.DEFINE_bool("a_test_switch", False, "A switch.")
absl_flags.DEFINE_multi_string("a_test_list", None, "A list.")


def test_flags_have_a_line_each():
  text = helps.describe(MODULE)
  assert text.startswith("``--help``: examples")
  lines = text.splitlines()
  assert (
    f"{'  --a_test_text=...':26}A text of several words. Default: some."
    in (lines)
  )
  assert f"{'  --a_test_switch':26}A switch." in lines
  assert f"{'  --a_test_list=...':26}A list." in lines


def test_keys_of_a_config_are_shown_with_their_values():
  text = helps.describe(MODULE, "digits_mlp")
  assert "keys of digits_mlp" in text
  assert " optim.learning_rate=" in text
  assert " quant.phase_in.steps=0" in text
  with pytest.raises(ValueError, match="digits_mpl"):
    helps.describe(MODULE, "digits_mpl")


@pytest.mark.slow
def test_help_of_every_program_fits_a_screen():
  done = subprocess.run(
    [sys.executable, "-c", ALL], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  texts = json.loads(done.stdout)
  assert len(texts) >= 6
  for text in texts:
    assert "bitnet-jax " in text
    assert len(text.splitlines()) <= 50
    assert max(map(len, text.splitlines())) <= 80
