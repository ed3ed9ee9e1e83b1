"""The examples of docs/your-data.md are written, asked and trained on."""

import contextlib
import io
import pathlib
import re
import shlex

import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.config import flags

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "your-data.md"
_SECTION = re.compile(r"^## (.*)\n", re.MULTILINE)
# A file's name, if it stands before a block; language and text of the block.
_BLOCK = re.compile(
  r"(?:`(\S+)`:\n\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL
)


def sections():
  """Returns the blocks of each section with data, see ``_BLOCK``."""
  _, *parts = _SECTION.split(PAGE.read_text(encoding="utf-8"))
  found = {
    name: _BLOCK.findall(text)
    for name, text in zip(parts[::2], parts[1::2], strict=True)
  }
  kinds = {"python", "csv"}
  return {n: b for n, b in found.items() if kinds & {kind for _, kind, _ in b}}


def configs(blocks):
  """Writes the data of a section, and yields its configs by workdir."""
  for file, language, text in blocks:
    if language == "csv":
      pathlib.Path(file).write_text(text, encoding="utf-8")
      continue
    if language == "python":
      with contextlib.redirect_stdout(io.StringIO()):
        exec(text, {})
      continue
    if language not in ("sh", "bash"):
      continue
    for line in text.replace("\\\n", " ").splitlines():
      program, verb, *words = shlex.split(line)
      if (program, verb) != ("bitnet-jax", "train"):
        continue
      given = dict(word.removeprefix("--").split("=", 1) for word in words)
      name, folder = given.pop("config"), given.pop("workdir")
      keys = {k.removeprefix("config."): v for k, v in given.items()}
      yield folder, flags.load_config(name, {**keys, "mesh.data": 1})


@pytest.mark.parametrize("name", sections())
def test_examples_decide_all_that_is_open(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for _, config in configs(sections()[name]):
    experiment = build(config)
    assert experiment.config["decided"]
    assert "valid" in experiment.data.facts.splits


@pytest.mark.slow
@pytest.mark.parametrize("name", sections())
def test_examples_train(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for folder, config in configs(sections()[name]):
    result = runner.run(config, tmp_path / folder)
    metrics = result["best"]["metrics"]
    score = metrics.get("valid/accuracy", metrics.get("valid/pearson"))
    # All of them are easy.
    assert score > 0.6, (folder, metrics)
