"""What docs/your-data.md shows works: its files are written and trained on.

In a section, a block of csv is the file whose name stands above it, a block of
text a listing of files, a block of python is run, and bash has the commands.
"""

import contextlib
import gzip
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from bitnet_jax.train.build import build
from bitnet_jax.train.config.flags import load_config

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"(?:`([^`\n]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"bitnet-jax train --config=(\w+) (.*)")
_SENTENCES = "A file, NAME, one of some.\n\nIt says nothing else.\n" * 20


def sections():
  """Returns the text of each section by its title."""
  parts = re.split(r"^## (.*)\n", PAGE, flags=re.MULTILINE)[1:]
  return dict(zip(parts[::2], parts[1::2], strict=True))


# Those that take less than a second to write and load.
QUICK = (
  "Labeled texts in a table: CSV, TSV, JSON Lines, Parquet",
  "Pairs of texts in a table",
  "Folders and globs of text files",
  "Tables of numbers: CSV, Parquet",
  "A graph whose nodes have classes",
  "Graphs with a class each",
)
# Blocks of sh are for files that a section does not write.
TITLES = [title for title, text in sections().items() if "```bash" in text]


def run(title, folder):
  """Writes the files of a section; returns its commands."""
  commands = []
  for name, language, text in _BLOCK.findall(sections()[title]):
    if language == "csv":
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text, encoding="utf-8")
    elif language == "text":
      write_listed(folder, *text.split())
    elif language == "python":
      with contextlib.chdir(folder):
        exec(text, {})
    elif language == "bash":
      commands += text.splitlines()
  return commands


def write_listed(folder, root, *names):
  """Writes the texts that a listing names, below its first line."""
  for name in names:
    path = folder / root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if name.endswith(".gz") else bytes
    path.write_bytes(pack(_SENTENCES.replace("NAME", name).encode()))


@pytest.mark.parametrize("title", QUICK)
def test_examples_can_be_trained_on(title, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for command in filter(_COMMAND.match, run(title, tmp_path)):
    flags = dict(re.findall(r"--config\.([\w.]+)=(\S+)", command))
    (name,) = re.findall(r"--config=(\w+)", command)
    path = str(ROOT / "configs" / f"{name}.py")
    experiment = build(load_config(path, {"mesh.data": 1} | flags))
    assert experiment.data.train_batch(0)


@pytest.mark.slow
@pytest.mark.parametrize("title", TITLES)
def test_commands_work_one_after_the_other(title, tmp_path):
  short = ["--config.total_steps=4", "--config.optim.warmup_steps=1"]
  for command in run(title, tmp_path):
    program, verb, *flags = shlex.split(command)
    assert program == "bitnet-jax"
    flags += short if verb == "train" else []
    subprocess.run(
      [sys.executable, "-m", "bitnet_jax", verb, *flags],
      cwd=tmp_path,
      check=True,
    )
  assert list(tmp_path.glob("runs/*/result.json"))
