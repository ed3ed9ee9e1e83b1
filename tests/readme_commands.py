"""Runs a command of the README, word for word: readme_commands.py NAME."""

import pathlib
import re
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"
_COMMAND = re.compile(r"<!-- command: (\w+) -->\n```bash\n(.*?)```", re.DOTALL)


def commands() -> dict[str, str]:
  """Returns the commands of the README by name."""
  return dict(_COMMAND.findall(README.read_text(encoding="utf-8")))


if __name__ == "__main__":
  (name,) = sys.argv[1:]
  sys.exit(
    subprocess.run(
      ["bash", "-c", commands()[name]], cwd=README.parent, check=False
    ).returncode
  )
