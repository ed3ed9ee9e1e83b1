"""The console script: its verbs, and what it says of a mistake."""

import ast
import pathlib
import subprocess
import sys
import types

import pytest

import bitnet_jax
from bitnet_jax import cli

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = ROOT / "bitnet_jax" / "commands"


@pytest.fixture
def call(monkeypatch, capsys):
  """Returns ``call(*words)``: status, standard output, standard error.

  A program is not run: ``call.ran`` has its ``main`` and the command line.
  """
  ran = []

  def run(main):
    ran.append((main, sys.argv))

  def call(*words):
    monkeypatch.setattr(sys, "argv", ["bitnet-jax", *words])
    status = 0
    try:
      cli.main()
    except SystemExit as error:
      status = error.code
    return (status, *capsys.readouterr())

  monkeypatch.setattr(cli.program, "run", run)
  call.ran = ran
  yield call


def test_every_command_has_a_verb():
  modules = {path.stem for path in COMMANDS.glob("*.py")} - {"__init__"}
  assert {verb.module for verb in cli.VERBS.values()} == modules


@pytest.mark.parametrize("verb", cli.VERBS)
def test_command_has_flags_and_main(verb):
  """Reads the module only: flags of two programs would meet in a process."""
  text = (COMMANDS / f"{cli.VERBS[verb].module}.py").read_text("utf-8")
  tree = ast.parse(text)
  functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
  (main,) = [f for f in functions if f.name == "main"]
  assert [a.arg for a in main.args.args] == ["argv"]
  assert f"bitnet-jax {verb} --" in ast.get_docstring(tree)


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_has_a_line_for_each_verb_on_one_screen(call, words):
  status, shown, errors = call(*words)
  assert (status, errors) == (0, "")
  lines = shown.splitlines()
  assert len(lines) <= 24
  assert max(map(len, lines)) <= 80
  for verb, it in cli.VERBS.items():
    assert any(verb in line and it.does in line for line in lines)


def test_version_is_that_of_the_package(call):
  assert call("--version") == (0, f"bitnet-jax {bitnet_jax.__version__}\n", "")


@pytest.mark.parametrize(
  ("word", "part"),
  [
    ("trian", "(did you mean 'train'?)"),
    ("--config=digits_mlp.py", "'--config=digits_mlp.py', which is not one of"),
  ],
)
def test_unknown_verb_is_told_of_in_one_line(call, word, part):
  status, shown, errors = call(word, "--workdir=runs/a")
  assert (status, shown) == (2, "")
  (line,) = errors.splitlines()
  assert line.startswith("error: the first word is ")
  assert part in line
  for verb in cli.VERBS:
    assert verb in line


def test_verb_runs_its_module_with_its_flags(call, monkeypatch):
  module = types.ModuleType("command")
  module.main = object()
  imported = []
  monkeypatch.setattr(
    cli.importlib, "import_module", lambda n: imported.append(n) or module
  )
  assert call("import", "--source=a b", "--output=c") == (0, "", "")
  assert imported == ["bitnet_jax.commands.import_hf"]
  expected = ["bitnet-jax import", "--source=a b", "--output=c"]
  assert call.ran == [(module.main, expected)]


def test_verbs_are_told_without_importing_jax():
  code = "import sys; from bitnet_jax import cli; print('jax' in sys.modules)"
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout == "False\n"
