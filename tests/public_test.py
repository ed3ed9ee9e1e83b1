"""Public names: listed, documented, with examples that run."""

import ast
import doctest
import importlib
import inspect
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = ("", ".convert", ".export", ".inference", ".layers", ".nnx")
MODULES = [f"bitnet_jax{m}" for m in (*MODULES, ".ops", ".quantizers")]
NAMES = [
  (module, name)
  for module in MODULES
  for name in importlib.import_module(module).__all__
]
# They trace a model several times.
SLOW = (
  "beam_search",
  "decoder_from_nnx",
  "generate",
  "read_hf",
  "stream",
  "write_gguf",
  "write_hf",
)
LAYERS = [pair for pair in NAMES if re.match("Bit[A-Z]", pair[1])]


def find(module, name):
  """Returns what a name stands for; for data, the class of its values."""
  found = getattr(importlib.import_module(module), name)
  return type(next(iter(found.values()))) if name == "RECIPES" else found


def examples():
  """Returns every documented object once, marked if its example is slow."""
  seen = {find(*pair): pair[1] for pair in NAMES}
  cases = []
  for found, name in seen.items():
    marks = [pytest.mark.slow] if name in SLOW else []
    name = f"{found.__module__}.{found.__qualname__}"
    cases.append(pytest.param(found, marks=marks, id=name))
  return cases


@pytest.mark.parametrize("module", MODULES)
def test_all_lists_what_a_module_takes_from_others(module):
  folder = ROOT / module.replace(".", "/")
  source = folder / ("public.py" if module == "bitnet_jax" else "__init__.py")
  imported = {
    alias.name
    for node in ast.parse(source.read_text("utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  }
  found = importlib.import_module(module).__all__
  assert len(set(found)) == len(found)
  assert set(found) == imported


def test_page_lists_the_public_names():
  text = (ROOT / "docs" / "api.md").read_text("utf-8")
  found = {}
  for module, rows in re.findall(
    r"^## `(\S+)`\n(.*?)(?=^## |\Z)", text, re.M | re.S
  ):
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", rows, re.MULTILINE)
    found[module] = sorted(re.findall(r"\w+", " ".join(cells)))
  expected = {m: sorted(importlib.import_module(m).__all__) for m in MODULES}
  assert found == expected


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=str)
def test_pages_take_public_names_only(page):
  text = page.read_text("utf-8")
  for module, names in re.findall(
    r"from (bitnet_jax[\w.]*) import ([\w, ]+)", text
  ):
    if module in MODULES:
      public = importlib.import_module(module).__all__
      assert set(re.split(r",\s*", names.strip(" ,"))) <= {*public, "config"}


@pytest.mark.slow
@pytest.mark.parametrize("found", examples())
def test_example_of_a_public_name_runs(found, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  parser = doctest.DocTestParser()
  name = found.__qualname__
  example = parser.get_doctest(inspect.getdoc(found), {}, name, None, None)
  assert example.examples, f"{name} has no example"
  assert re.search(rf"import .*\b{name}\b", example.docstring)
  printed = []
  runner = doctest.DocTestRunner(verbose=False)
  runner.run(example, out=printed.append)
  assert not runner.failures, "".join(printed)


@pytest.mark.parametrize(("module", "name"), LAYERS)
def test_signature_of_a_layer_fits_a_few_lines(module, name):
  layer = find(module, name)
  signature = inspect.signature(layer)
  assert len(f"{name}{signature}") <= 6 * 80
  assert "0x" not in str(signature)
  assert "recipe=RECIPES['b158']" in str(signature)
