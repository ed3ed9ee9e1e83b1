"""What the README says is so."""

import pathlib
import re
import runpy

import jax
import jax.numpy as jnp
import pytest
from absl import flags

import bitnet_jax
from bitnet_jax import cli
from bitnet_jax.studies import ledger
from bitnet_jax.train.config import loading
from tests.readme_commands import README, commands

ROOT = README.parent


def run_path(path):
  """Runs a program's file; its flags, which others have too, are dropped."""
  before = set(flags.FLAGS)
  found = runpy.run_path(path)
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)
  return found


def text():
  return README.read_text(encoding="utf-8")


def test_readme_is_short():
  assert len(text().splitlines()) <= 150


def test_commands_name_files_that_exist():
  assert set(commands()) == {"train", "test"}
  files = re.findall(r"\b(?:configs|experiments)/[\w/]+\.py", text())
  assert files
  for file in files:
    assert (ROOT / file).is_file(), file


def test_verbs_and_configs_of_the_console_script_exist():
  verbs = re.findall(r"\bbitnet-jax ([a-z]\w*)", text())
  assert len(set(verbs)) >= 6
  assert set(verbs) <= {*cli.VERBS, "sweep"}
  named = re.findall(r"--config=(\w+)(?![\w/.])", text())
  assert named
  assert set(named) <= set(loading.names())


def test_every_recipe_is_listed():
  for name in bitnet_jax.RECIPES:
    assert f"`{name}`" in text(), name


def test_example_runs():
  (code,) = re.findall(r"```python\n(.*?)```", text(), re.DOTALL)
  assert len(code.splitlines()) <= 12
  names = {}
  exec(code, names)  # The README's own words.
  x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
  y, variables = names["Net"]().init_with_output(jax.random.key(1), x)
  assert y.shape == (2, 10)
  assert jnp.isfinite(y).all()
  assert set(variables["params"]) == {"BitConv_0", "BitDense_0", "Dense_0"}


def test_table_is_that_of_all_findings():
  table = ledger.table(ROOT / "experiments", link="experiments/")
  assert f"{ledger.START}\n{table}\n{ledger.END}\n" in text()


@pytest.mark.parametrize(
  "study", ["language_model", "translation", "families", "fine_tuning"]
)
def test_table_of_a_study_is_that_of_its_records(study):
  folder = ROOT / "experiments" / study
  table = run_path(str(folder / "run.py"))["table"]()
  shown = (folder / "README.md").read_text(encoding="utf-8")
  assert f"<!-- tables -->\n{table}\n<!-- end -->" in shown


def test_table_of_rounded_gradients_is_that_of_its_records():
  path = ROOT / "experiments" / "backward" / "run.py"
  table = run_path(str(path))["table"]()
  shown = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
  assert f"<!-- table: backward -->\n{table}\n<!-- end -->" in shown


def test_configs_are_all_mentioned_in_the_changelog_or_named_by_themselves():
  for config in pathlib.Path(ROOT / "configs").glob("*.py"):
    assert f"configs/{config.name}" in config.read_text(encoding="utf-8")
