"""The commands of docs/using-models.md work, in the order of the page."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from tests.your_data_test import PAGE as YOUR_DATA

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "using-models.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"```(python|bash)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_commands_work_as_they_stand(tmp_path):
  (reviews,) = re.findall(
    r"`reviews.csv`:\n\n```csv\n(.*?)```", YOUR_DATA, re.DOTALL
  )
  (tmp_path / "reviews.csv").write_text(reviews)
  script = f'set -e\nbitnet-jax() {{ {sys.executable} -m bitnet_jax "$@"; }}\n'
  for language, text in _BLOCK.findall(PAGE):
    part = text
    if language == "python":
      part = f"{sys.executable} - <<'END'\n{text}END\n"
    script += part
  done = subprocess.run(
    ["bash", "-c", script],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  lines = (tmp_path / "digits.jsonl").read_text().splitlines()
  found = [json.loads(line) for line in lines]
  assert len(found) > 100
  zeros = [one["class"] == "zero" for one in found[:-3]]
  assert sum(zeros) > 0.9 * len(zeros)
  assert (tmp_path / "runs" / "digits" / "confusion_test.png").exists()
  assert "new/302.png" in done.stdout
