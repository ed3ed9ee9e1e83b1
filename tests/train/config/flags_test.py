"""Command lines: what is taken, and what is said of a mistake."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags as absl_flags
from absl import logging
from ml_collections import config_flags

from bitnet_jax.train.config import flags
from tests.train.conftest import CONFIGS

ROOT = CONFIGS.parent
# ml_collections loads the file so.
pytestmark = pytest.mark.filterwarnings(
  r"ignore:the load_module\(\) method:DeprecationWarning"
)
DIGITS = f"--config={CONFIGS / 'digits_mlp.py'}"


@pytest.fixture
def parse(monkeypatch, capsys):
  """Returns ``parse(*arguments)``: the config, or (status, message).

  ``parse.kept`` says for each call that kept memory that it did.
  """
  before = logging.get_verbosity()
  kept = []
  monkeypatch.setattr(flags, "keep_memory", lambda: kept.append(True))

  def parse(*arguments):
    values = absl_flags.FlagValues()
    config_flags.DEFINE_config_file(
      "config", None, "", values, lock_config=True
    )
    absl_flags.DEFINE_string("workdir", None, "", values, required=True)
    absl_flags.DEFINE_integer("verbosity", -1, "", flag_values=values)
    monkeypatch.setattr(flags.flags, "FLAGS", values)
    argv = ["program", "--workdir=w", *arguments]
    monkeypatch.setattr(sys, "argv", argv)  # ml_collections looks there.
    try:
      assert flags.parse_flags(argv) == ["program"]
    except SystemExit as error:
      shown = capsys.readouterr().err
      assert "Traceback" not in shown
      assert shown.startswith("error: ")
      return error.code, shown.removeprefix("error: ").strip()
    return values["config"].value.to_dict()

  parse.kept = kept
  yield parse
  logging.set_verbosity(before)


@pytest.mark.parametrize(
  ("argument", "path", "expected"),
  [
    ("--config.seed=3", ("seed",), 3),
    ("-config.seed=3", ("seed",), 3),
    ("--config.optim.learning_rate=1", ("optim", "learning_rate"), 1.0),
    ("--config.data.standardize=false", ("data", "standardize"), False),
    ("--config.data.source=file:a=b.npz", ("data", "source"), "file:a=b.npz"),
    (
      "--config.quant.weights.range=(-2,1)",
      ("quant", "weights", "range"),
      (-2, 1),
    ),
    (
      '--config.quant.rules=(("head","float"),)',
      ("quant", "rules"),
      (("head", "float"),),
    ),
  ],
)
def test_any_key_is_a_flag(parse, argument, path, expected):
  value = parse(DIGITS, argument)
  for name in path:
    value = value[name]
  assert value == expected
  assert type(value) is type(expected)


@pytest.mark.parametrize(
  "arguments",
  [
    ("--config=digits_mlp:B", "--config.seed=3"),
    ("-config", "digits_mlp:B", "--config.seed", "3"),
  ],
)
def test_config_may_be_named(parse, tmp_path, monkeypatch, arguments):
  monkeypatch.chdir(tmp_path)
  by_path = parse(f"{DIGITS}:B", "--config.seed=3")
  assert parse(*arguments) == by_path


def test_config_with_the_name_of_a_file_is_told_of(
  parse, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "digits_mlp.py").write_text("")
  assert parse("--config=digits_mlp") == parse(DIGITS)
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("--config=digits_mlp is the config of the library; ")


def test_memory_is_kept_for_transformers_alone(parse):
  for name in ("digits_cnn", "digits_mlp", "karate_gnn"):
    parse(f"--config={CONFIGS / name}.py")
  assert not parse.kept
  for name in ("digits_vit", "pydoc_decoder", "pydoc_encoder_decoder"):
    parse(f"--config={CONFIGS / name}.py")
  assert len(parse.kept) == 3


def test_value_may_be_an_argument_of_its_own(parse):
  config = parse(
    "--config", str(CONFIGS / "digits_mlp.py"), "--config.seed", "3"
  )
  assert config["seed"] == 3


@pytest.mark.parametrize(
  "arguments",
  [
    ("--config.data.eval_batch_size=None",),
    ("--config.data.eval_batch_size", "None"),
    ("-config.data.eval_batch_size=None", "--config.seed=3"),
  ],
)
def test_any_key_may_be_left_open(parse, arguments):
  config = parse(DIGITS, *arguments)
  assert config["data"]["eval_batch_size"] is None
  assert config["seed"] == (
    3 if len(arguments) == 2 and "seed" in arguments[1] else 0
  )


def test_value_of_a_key_that_was_left_open_rules(parse):
  key = "--config.data.eval_batch_size"
  config = parse(DIGITS, f"{key}=None", f"{key}=7")
  assert config["data"]["eval_batch_size"] == 7


def test_group_is_not_left_open(parse):
  status, message = parse(DIGITS, "--config.distill=None")
  assert status == 2
  assert "distill is a group; its keys are" in message


def test_unknown_key_that_is_left_open_is_named(parse):
  status, message = parse(DIGITS, "--config.data.batch_siz=None")
  assert status == 2
  assert "batch_siz is not a key" in message
  assert "data.batch_size" in message


def test_variant_is_chosen_behind_a_colon(parse):
  assert parse(DIGITS)["model"]["width"] == 128
  assert parse(f"{DIGITS}:B")["model"]["width"] == 512


@pytest.mark.parametrize(
  ("arguments", "steps", "epochs"),
  [
    ([], None, 60),
    (["--config.total_steps=7"], 7, None),
    (["--config.total_steps", "7"], 7, None),
    (["--config.total_epochs=7"], None, 7),
    (["--config.total_steps=7", "--config.total_epochs=8"], 7, 8),
  ],
)
def test_length_that_is_given_rules(parse, arguments, steps, epochs):
  config = parse(DIGITS, *arguments)
  assert (config["total_steps"], config["total_epochs"]) == (steps, epochs)


def test_epochs_override_the_steps_of_a_config(parse, tmp_path):
  text = (CONFIGS / "digits_mlp.py").read_text()
  assert "total_epochs=60" in text
  text = text.replace("total_epochs=60", "total_steps=9")
  (tmp_path / "steps.py").write_text(text)
  path = f"--config={tmp_path / 'steps.py'}"
  assert parse(path)["total_steps"] == 9
  config = parse(path, "--config.total_epochs=2")
  assert (config["total_steps"], config["total_epochs"]) == (None, 2)


@pytest.mark.parametrize(
  ("arguments", "parts"),
  [
    (
      ["--config.optim.learning_rte=0.1"],
      [
        "--config.optim.learning_rte=0.1",
        "mean 'optim.learning_rate'",
        "optim.b1",
      ],
    ),
    (["--config.sead=1"], ["--config.sead=1", "mean 'seed'", "log_every"]),
    (["--config.sead", "1"], ["--config.sead=1", "mean 'seed'"]),
    (
      ["--config.optimm.name=adam"],
      ["--config.optimm.name=adam", "mean 'optim.name'"],
    ),
    (
      ["--config.seed.x=1"],
      ["--config.seed.x=1: seed.x is not a key of the config"],
    ),
    (
      ["--config.model.num_layers=3"],
      ["the keys of model are: model.depth, model.dropout"],
    ),
    (
      ["--config.quant=float"],
      ["--config.quant=float: quant is a group; its keys are:", "quant.recipe"],
    ),
    (["--config.seed=x"], ["--config.seed=x", "of type int, which 'x' is not"]),
    (["--config.seed=1.5"], ["--config.seed=1.5", "of type int"]),
    (
      ["--config.optim.learning_rate=fast"],
      ["--config.optim.learning_rate=fast", "of type float"],
    ),
    (
      ["--config.data.standardize=maybe"],
      ["--config.data.standardize=maybe", "of type bool"],
    ),
    (
      ["--config.early_stopping.patience=long"],
      ["--config.early_stopping.patience=long", "of type int"],
    ),
    (["--config.seed"], ["--config.seed=: seed takes", "of type int"]),
    (["--wrkdir=x"], ["--wrkdir is not a flag", "'--workdir'"]),
    (["--optim.lr=1"], ["--optim.lr is not", "'--config.optim.learning_rate'"]),
    (["--config.optim.lr=1"], ["did you mean 'optim.learning_rate'"]),
    (["sweep", "--config.seed=1"], ["['sweep'] are not flags (--name=value)"]),
  ],
  ids=str,
)
def test_mistaken_argument_is_named(parse, arguments, parts):
  status, message = parse(DIGITS, *arguments)
  assert status == 2
  for part in parts:
    assert part in message


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (["config"], "--config is required; --help shows examples"),
    (["config", "w"], "--config and --w are required; --help shows examples"),
  ],
)
def test_missing_flags_are_named_together(monkeypatch, capsys, names, message):
  values = absl_flags.FlagValues()
  for name in names:
    absl_flags.DEFINE_string(name, None, "", flag_values=values, required=True)
  monkeypatch.setattr(flags.flags, "FLAGS", values)
  with pytest.raises(SystemExit):
    flags.parse_flags(["program"])
  assert capsys.readouterr().err == f"error: {message}\n"


def test_arguments_of_a_program_that_takes_them_are_kept(monkeypatch):
  values = absl_flags.FlagValues()
  absl_flags.DEFINE_string("csv", None, "", flag_values=values)
  absl_flags.DEFINE_integer("verbosity", 0, "", flag_values=values)
  values["verbosity"].using_default_value = False
  monkeypatch.setattr(flags.flags, "FLAGS", values)
  argv = ["program", "runs/a b", "--csv=f", "runs/c"]
  assert flags.parse_flags(argv, arguments="RUN") == [
    "program",
    "runs/a b",
    "runs/c",
  ]
  assert values.csv == "f"


@pytest.mark.parametrize("form", ["--config={}", "-config={}", "--config {}"])
def test_missing_config_file_lists_those_there_are(parse, form):
  path = CONFIGS / "digit_mlp.py"
  status, message = parse(*form.format(path).split())
  assert status == 2
  assert f"--config={path} does not exist" in message
  assert f"did you mean '{CONFIGS / 'digits_mlp.py'}'" in message
  assert str(CONFIGS / "xor_mlp.py") in message


def test_config_file_in_a_missing_folder_is_named(parse, tmp_path):
  status, message = parse(f"--config={tmp_path}/none/x.py")
  assert status == 2
  assert message == f"--config={tmp_path}/none/x.py does not exist"


def test_unknown_variant_lists_the_variants(parse):
  status, message = parse(f"{DIGITS}:XXL", "--config.seed=1")
  assert status == 2
  assert message == "variant is 'XXL', not one of ['S', 'B']"


def test_orbax_is_kept_quiet_unless_asked(parse):
  logging.set_verbosity(logging.INFO)
  parse(DIGITS, "--verbosity=0")
  assert logging.get_verbosity() == logging.INFO
  parse(DIGITS)
  assert logging.get_verbosity() == logging.WARNING


def test_loaded_config_takes_overrides_of_the_right_type():
  path = str(CONFIGS / "digits_mlp.py")
  config = flags.load_config(f"{path}:B", {"seed": 3, "quant.norm": "none"})
  assert (config["seed"], config["quant"]["norm"]) == (3, "none")
  assert config["model"]["width"] == 512
  assert flags.load_config(path, {"eval_every": None})["eval_every"] is None
  assert flags.load_config(path)["seed"] == 0


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"sead": 3}, "sead is not a key of the config .*mean 'seed'"),
    ({"sead": None}, "sead is not a key of the config"),
    ({"quant": 3}, "quant is a group; its keys are: quant.acts"),
    ({"seed": "x"}, "seed takes a value of type int, which 'x' is not"),
  ],
)
def test_loaded_config_refuses_a_mistaken_override(overrides, message):
  with pytest.raises(ValueError, match=message):
    flags.load_config(str(CONFIGS / "digits_mlp.py"), overrides)


@pytest.mark.parametrize(
  ("arguments", "status", "parts"),
  [
    (
      ["train.py", DIGITS, "--config.optim.lr=1", "--workdir={}"],
      2,
      ["error: --config.optim.lr=1: optim.lr is not a key", "learning_rate"],
    ),
    pytest.param(
      ["train.py", DIGITS], 2, ["error: ", "--workdir"], marks=pytest.mark.slow
    ),
    (
      ["train.py", DIGITS, "--config.quant.recipe=b185", "--workdir={}"],
      1,
      ["error: quant.recipe is 'b185'", "'float', 'b158'"],
    ),
    pytest.param(
      ["train.py", DIGITS, "--workdir={}", "--process_id=1"],
      1,
      ["error: --process_id requires --multihost"],
      marks=pytest.mark.slow,
    ),
    pytest.param(
      ["evaluate.py", "--workdir={}"],
      1,
      ["error: ", "config.json does not exist: no run is there"],
      marks=pytest.mark.slow,
    ),
  ],
  ids=lambda value: "",
)
def test_program_ends_with_one_line_and_a_status(
  tmp_path, arguments, status, parts
):
  folder = tmp_path / "run"
  program, *rest = [a.format(folder) for a in arguments]
  done = subprocess.run(
    [sys.executable, str(ROOT / "experiments" / program), *rest],
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == status
  assert done.stdout == ""
  (line,) = done.stderr.splitlines()
  for part in parts:
    assert part in line
  assert not pathlib.Path(folder).exists()
