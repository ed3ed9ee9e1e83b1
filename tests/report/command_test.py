"""The command: ``bitnet-jax report`` with its flags, and its mistakes."""

import json
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from tests.report import synthetic

PROGRAM = pathlib.Path(__file__).parents[2] / "experiments" / "report.py"
pytestmark = pytest.mark.slow


def call(*words):
  """Returns status, output and errors of the program."""
  command = [sys.executable, PROGRAM, *words]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  return done.returncode, done.stdout, done.stderr


def test_command_writes_a_site_and_tells_of_lines_that_it_leaves_out(
  studies, tmp_path
):
  with (studies / "study_0" / "results.jsonl").open("a") as file:
    file.write('{"a')
  mine = tmp_path / "mine.jsonl"
  mine.write_text(json.dumps(synthetic.record("mine", {"a": 1}, 0)))
  status, shown, errors = call(
    f"--studies={studies}", f"--output={tmp_path}/site", f"--records={mine}"
  )
  page = tmp_path / "site" / "index.html"
  assert (status, shown) == (0, f"{page}: 2 studies, 5 records\n")
  assert errors.startswith("study_0/results.jsonl, line 5 is cut off")
  assert "records-mine" in page.read_text()


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ((), "error: exactly one of --output and --watch is required\n"),
    (("--output=a", "--watch=b"), "error: exactly one of"),
    (("--output=a", "--studies=none"), "error: none is no folder; name one"),
    (("--watch=none"), "error: none is no folder; name one"),
    (("--output=a", "--records=none"), "error: [Errno 2] No such file"),
  ],
)
def test_mistake_is_told_of_in_one_line(words, message):
  words = (words,) if isinstance(words, str) else words
  status, shown, errors = call(*words)
  assert (status, shown) == (1, "")
  assert errors.startswith(message)
  assert errors.count("\n") == 1


def test_watching_ends_with_ctrl_c(tmp_path):
  command = [sys.executable, PROGRAM, f"--watch={tmp_path}"]
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  ) as process:
    line = process.stdout.readline()
    assert re.match(r"http://127\.0\.0\.1:\d+/ shows ", line)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
  assert process.returncode == 128 + signal.SIGINT
  assert errors.count("\n") == 1
