"""The examples of docs/your-data.md: files, and what to type."""

import contextlib
import pathlib
import re

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "your-data.md"
_FILE = re.compile(r"`([\w./]+)`:\n\n```(?:csv|json)\n(.*?)```", re.DOTALL)
_PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
_TREE = re.compile(r"```text\n(\w+/)\n(.*?)```", re.DOTALL)
_TRAIN = re.compile(r"^bitnet-jax train (.*)$", re.MULTILINE)


def section(heading):
  """Returns the text below a heading."""
  text = PAGE.read_text(encoding="utf-8")
  return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def write(heading, folder):
  """Writes the files of a section, of its listings, and of its programs."""
  text = section(heading)
  for name, content in _FILE.findall(text):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")
  with contextlib.chdir(folder):
    for program in _PROGRAM.findall(text):
      exec(program, {})
  for root, names in _TREE.findall(text):
    for name in names.split():
      path = folder / root / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(f"The text of {name}, and more of it.\n" * 40)


def trainings(heading):
  """Returns the config and the source of each command that trains."""
  found = []
  for line in _TRAIN.findall(section(heading)):
    words = dict(word.removeprefix("--").split("=", 1) for word in line.split())
    found.append((words["config"], words["config.data.source"]))
  return found
