"""Programs end with one line, and what libraries print of it is in a file."""

import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time

import pytest

from tests.train.conftest import ROOT, command_of

PROGRAMS = sorted(
  path
  for path in (ROOT / "experiments").rglob("*.py")
  if "program.run(" in path.read_text(encoding="utf-8")
  or "app.run(" in path.read_text(encoding="utf-8")
)
OVERRIDES = {
  "total_steps": 40,
  "log_every": 5,
  "eval_every": 10,
  "checkpoint_every": 10,
  "model.width": 16,
  "model.depth": 1,
  "mesh.data": 1,
}
SLOW_IMPORT = """
from bitnet_jax import program
print("ready", flush=True)
import time
time.sleep(60)
"""
IGNORING = """
from bitnet_jax import program
import gc, signal, time

def interrupt(phase, info):
  gc.callbacks.clear()
  signal.raise_signal(signal.SIGINT)

def main(argv):
  gc.callbacks.append(interrupt)
  gc.collect()
  time.sleep(60)

if {runs}:
  program.run(main)
main([])
"""
# As extension modules do.
REPLACING = """
from bitnet_jax import program
import signal

def main(argv):
  try:
    signal.raise_signal(signal.SIGINT)
  except KeyboardInterrupt as error:
    raise ImportError("while initializing") from error

if {runs}:
  program.run(main)
main([])
"""
# So that a signal after it does not meet Python's own start.
STARTED = """
from bitnet_jax import program
import runpy, sys
print("ready", flush=True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
PRINTING = """
from bitnet_jax import program

def main(argv):
  for i in range(100_000):
    print(i)

program.run(main)
"""
FAILING = """
import pathlib, sys, threading
from bitnet_jax import error_log, program

def fail():
  raise ValueError("in a thread")

def main(argv):
  error_log.keep_in(pathlib.Path(sys.argv[0]))
  thread = threading.Thread(target=fail)
  thread.start()
  thread.join()
  raise RuntimeError("RESOURCE_EXHAUSTED:\\nno more threads")

program.run(main)
"""


@pytest.fixture(autouse=True)
def heeds_signals():
  """Lets programs be interrupted, even if these tests run in the background."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


# That of the start, and that of the end.
SUMMARIES = re.compile(
  r"^run  .*?^memory [^\n]*\n|^  metric .*?^ +tensorboard [^\n]*\n",
  re.DOTALL | re.MULTILINE,
)


def start(words):
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  return subprocess.Popen(
    words,
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def lines_of(errors):
  """Returns what was printed but the summaries and the progress bar."""
  lines = SUMMARIES.sub("", errors.replace("\r", "\n")).splitlines()
  return [line for line in lines if line and not line.startswith("train: ")]


def test_there_are_programs():
  assert len(PROGRAMS) >= 17


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.parent.name + p.stem)
def test_every_program_starts_and_ends_in_one_place(path):
  text = path.read_text(encoding="utf-8")
  first = next(n for n in text.splitlines() if n.startswith(("import", "from")))
  assert first == "from bitnet_jax import program"
  assert "app.run(" not in text


def test_interrupted_import_ends_with_one_line():
  process = start([sys.executable, "-c", SLOW_IMPORT])
  assert process.stdout.readline() == "ready\n"
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate()
  assert errors == "stopped by SIGINT\n"
  assert process.returncode == 128 + signal.SIGINT


@pytest.mark.parametrize("runs", [False, True], ids=["imports", "main"])
@pytest.mark.parametrize(
  "library", [IGNORING, REPLACING], ids=["ignores", "replaces"]
)
def test_signal_that_a_library_handles_still_ends_the_program(library, runs):
  process = start([sys.executable, "-c", library.format(runs=runs)])
  _, errors = process.communicate(timeout=30)
  assert errors == "stopped by SIGINT\n"
  assert process.returncode == 128 + signal.SIGINT


def test_reader_of_the_output_may_end_first():
  with start([sys.executable, "-c", PRINTING]) as process:
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
  assert process.returncode == 128 + signal.SIGPIPE


def test_failure_is_one_line_that_names_the_file_with_the_tracebacks(tmp_path):
  program = tmp_path / "failing.py"
  program.write_text(FAILING.replace("sys.argv[0]", repr(str(tmp_path))))
  process = start([sys.executable, str(program)])
  _, errors = process.communicate()
  assert errors == (
    "error: RESOURCE_EXHAUSTED: no more threads (details:"
    f" {tmp_path / 'errors.log'})\n"
  )
  assert process.returncode == 1
  details = (tmp_path / "errors.log").read_text()
  assert "ValueError: in a thread" in details
  assert "RuntimeError: RESOURCE_EXHAUSTED" in details


# Starts a program under a lower limit, without forking this process.
LIMITED = """
import os, resource, sys
kind, value = map(int, sys.argv[1:3])
resource.setrlimit(kind, (value, value))
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "value", "message"),
  [
    (resource.RLIMIT_NOFILE, 24, "open"),
    (resource.RLIMIT_FSIZE, 8 * 1024, "File too large"),
    (resource.RLIMIT_FSIZE, 1024, "File too large: '"),
  ],
  ids=["descriptors", "checkpoint", "config"],
)
def test_missing_resource_is_told_of_in_one_line(
  tmp_path, kind, value, message
):
  words = command_of(
    "train.py", "digits_mlp.py", OVERRIDES, f"--workdir={tmp_path / 'run'}"
  )
  limited = [sys.executable, "-c", LIMITED, str(int(kind)), str(value)]
  process = start([*limited, *words])
  _, errors = process.communicate()
  assert process.returncode == 1
  (line,) = lines_of(errors)
  assert line.startswith("error: ")
  assert message in line


@pytest.mark.slow
def test_signals_in_the_first_seconds_leave_one_line_and_no_half_run(tmp_path):
  # Beyond that the run has begun.
  for i, delay in enumerate((0.0, 0.3, 0.8, 1.5, 2.5, 3.5, 4.5)):
    folder = pathlib.Path(tmp_path / str(i))
    python, *words = command_of(
      "train.py", "digits_mlp.py", OVERRIDES, f"--workdir={folder}"
    )
    process = start([python, "-c", STARTED, *words])
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    # When all is done, the interpreter that ends leaves signals to the system.
    done = (0, -signal.SIGINT) if (folder / "result.json").exists() else ()
    assert process.returncode in (128 + signal.SIGINT, *done), errors
    assert len(lines_of(errors)) <= 1, errors
    assert "Traceback" not in errors
    if "nothing is saved" in errors:
      assert not folder.exists()
    if "checkpoint is saved" in errors:
      assert list(folder.glob("checkpoints/*/seal.json"))
