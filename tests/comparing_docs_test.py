"""The commands of docs/comparing.md, one after another."""

import os
import re
import subprocess
import sys

import pytest

from tests.train.conftest import ROOT

PAGE = ROOT / "docs" / "comparing.md"
_COMMAND = re.compile(r"<!-- command: (\w+) -->\n```bash\n(.*?)```", re.DOTALL)


def commands():
  return dict(_COMMAND.findall(PAGE.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_commands_work_in_an_empty_folder(tmp_path):
  found = commands()
  assert set(found) == {"sweep", "compare", "runs"}
  script = tmp_path / "bin" / "bitnet-jax"
  script.parent.mkdir()
  script.write_text(f'#!/bin/sh\nexec {sys.executable} -m bitnet_jax "$@"\n')
  script.chmod(0o755)
  path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
  env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
  printed = {}
  for name, command in found.items():
    done = subprocess.run(
      ["bash", "-c", command],
      cwd=tmp_path,
      env=env,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, (name, done.stderr)
    printed[name] = done.stdout
  members = [path.name for path in (tmp_path / "runs" / "sweep").iterdir()]
  assert "quant.recipe=b158,seed=1" in members
  assert printed["sweep"].count("\n| b158") == 2
  assert "difference to quant.recipe=float" in printed["compare"]
  assert len((tmp_path / "table.csv").read_text().splitlines()) == 4
  assert len([*(tmp_path / "figures").glob("*-dark.png")]) == 3
  assert printed["runs"].count(" finished ") == 6
