"""Configs by path and by name, and what is said of those that are not there."""

import pathlib

import pytest

from bitnet_jax.train.config import loading
from tests.train.conftest import CONFIGS

# Of files that are no configs: text, and what the error says after the path.
MISTAKEN = {
  "syntax": ("x = 1\ndef get_config(\n", ", line 2: SyntaxError: "),
  "import": (
    "def get_config():\n  import not_there\n",
    ", line 2: ModuleNotFoundError: No module named 'not_there'",
  ),
  "name": ("\n\nnot_there\n", ", line 3: NameError: "),
  "key": (
    "from bitnet_jax.config import base\n\n"
    "def get_config():\n  c = base('classification', 'mlp')\n  c.modle.x = 1\n",
    ", line 5: AttributeError: ",
  ),
  "empty": ("", " has no function get_config()"),
  "none": (
    "def get_config():\n  pass\n",
    ": get_config() returns NoneType, not ConfigDict",
  ),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
  """An empty folder, in which the test runs."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_every_config_of_the_library_has_a_name(here):
  assert loading.names() == sorted(path.stem for path in CONFIGS.glob("*.py"))


@pytest.mark.parametrize("variant", ["", ":S", ":B"])
def test_config_is_the_same_by_name_and_by_path(here, variant):
  by_path = loading.load(f"{CONFIGS / 'digits_mlp.py'}{variant}")
  assert loading.load(f"digits_mlp{variant}").to_dict() == by_path.to_dict()


def test_installed_configs_are_inside_the_package(here, monkeypatch):
  package = here / "site-packages" / "bitnet_jax"
  (package / "configs").mkdir(parents=True)
  (package.parent / "configs").mkdir()  # Of another package.
  monkeypatch.setattr(
    loading.bitnet_jax, "__file__", str(package / "__init__.py")
  )
  (package / "configs" / "own.py").write_text("")
  assert loading.names() == ["own"]
  assert loading.locate("own:B") == f"{package / 'configs' / 'own.py'}:B"


def test_path_of_a_file_is_taken_before_a_name(here):
  for path in ("digits_mlp", "digits_mlp.py", "a b/é.py"):
    file = here / path
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    assert loading.locate(f"{path}:B") == f"{path}:B"
    assert loading.note(path) is None


def test_name_is_not_a_file_with_its_name_in_this_folder(here):
  (here / "digits_mlp.py").write_text("")
  assert loading.locate("digits_mlp") == str(CONFIGS / "digits_mlp.py")
  assert loading.note("digits_mlp:B") == (
    "--config=digits_mlp is the config of the library; the file in this folder"
    " is --config=digits_mlp.py"
  )
  assert loading.note("digits_cnn") is None


def test_nothing_is_noted_inside_the_folder_of_the_library(monkeypatch):
  monkeypatch.chdir(CONFIGS)
  assert loading.note("digits_mlp") is None


def test_home_folder_is_expanded(here, monkeypatch):
  monkeypatch.setenv("HOME", str(here))
  (here / "own.py").write_text("")
  assert loading.locate("~/own.py") == str(here / "own.py")


@pytest.mark.parametrize(
  ("value", "parts"),
  [
    ("digit_mlp", ["(did you mean 'digits_mlp'?)", "the library are: bitnet_"]),
    ("", ["--config= is neither"]),
    ("mine", ["--config=mine is neither", "(did you mean 'mine.py'?)"]),
    ("minn.py", ["(did you mean 'mine.py'?); there are: mine.py"]),
    ("digits_mlp.py", ["(did you mean --config=digits_mlp, a config of the"]),
    (
      "configs/xor_mlp.py:B",
      ["--config=configs/xor_mlp.py does not exist (di"],
    ),
    ("none/mine", ["--config=none/mine does not exist"]),
  ],
)
def test_missing_config_names_the_nearest(here, value, parts):
  (here / "mine.py").write_text("")
  with pytest.raises(ValueError) as caught:
    loading.load(value)
  for part in parts:
    assert part in str(caught.value)


@pytest.mark.parametrize("kind", MISTAKEN)
def test_mistake_in_a_file_is_named_with_its_line(here, kind):
  text, message = MISTAKEN[kind]
  pathlib.Path("own.py").write_text(text)
  with pytest.raises(ValueError) as caught:
    loading.load("own.py")
  assert f"{caught.value}".startswith(f"--config=own.py{message}")


def test_variant_of_a_config_without_variants_is_an_error(here):
  pathlib.Path("own.py").write_text("def get_config():\n  pass\n")
  with pytest.raises(ValueError, match=r"own.py: TypeError: .* 1 was given"):
    loading.load("own.py:B")
