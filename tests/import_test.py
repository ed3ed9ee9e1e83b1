"""What importing the package gives, and what it leaves alone."""

import json
import pathlib
import subprocess
import sys

import pytest

import bitnet_jax

HEAVY = (
  "flax.nnx",
  "grain",
  "matplotlib",
  "networkx",
  "optax",
  "orbax",
  "sentencepiece",
  "sklearn",
  "tensorflow",
  "tensorflow_datasets",
  "tokenizers",
  "torch",
)
PROGRAM = """
import json, sys, time
start = time.perf_counter()
import jax, flax.linen
before = time.perf_counter()
import bitnet_jax
bitnet_jax.BitDense
seconds = {"flax": before - start, "package": time.perf_counter() - before}
print(json.dumps({"modules": sorted(sys.modules), "seconds": seconds}))
"""
PUBLIC = (
  "BitConv",
  "BitDense",
  "BitDenseGeneral",
  "Packed",
  "QTensor",
  "Quantizer",
  "RECIPES",
  "Recipe",
)


@pytest.fixture(scope="module")
def fresh():
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
  )
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", HEAVY)
def test_import_leaves_heavy_modules_alone(fresh, module):
  loaded = [
    name
    for name in fresh["modules"]
    if name == module or name.startswith(module + ".")
  ]
  assert not loaded


def test_import_adds_little_to_that_of_flax(fresh):
  print(fresh["seconds"])
  assert fresh["seconds"]["package"] < fresh["seconds"]["flax"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_there(name):
  assert hasattr(bitnet_jax, name)


def test_products_are_public():
  from bitnet_jax.ops import bit_conv, bit_dot

  assert callable(bit_dot)
  assert callable(bit_conv)


BLOCKED = """
import json, pkgutil, sys
import bitnet_jax

for name in {extras!r}:
  sys.modules[name] = None  # As if it was not installed.
found = {{}}
for module in pkgutil.walk_packages(
  bitnet_jax.__path__, "bitnet_jax.", onerror=lambda name: None
):
  try:
    __import__(module.name)
    found[module.name] = None
  except ImportError as error:
    found[module.name] = str(error)
print(json.dumps(found))
"""
EXTRAS = (
  "filelock",
  "flatbuffers",
  "gcsfs",
  "gguf",
  "grain",
  "jinja2",
  "jsonschema",
  "matplotlib",
  "networkx",
  "plotly",
  "rouge_score",
  "sacrebleu",
  "safetensors",
  "scipy",
  "sentencepiece",
  "sklearn",
  "tensorboardX",
  "tensorflow_datasets",
  "tokenizers",
  "tqdm",
)


def test_import_without_extras_works_or_says_which_one_to_install():
  program = BLOCKED.format(extras=EXTRAS)
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  found = json.loads(done.stdout.splitlines()[-1])
  failed = {name: text for name, text in found.items() if text is not None}
  assert failed["bitnet_jax.train"] == (
    "bitnet_jax.train needs tensorboardX, tqdm: pip install 'bitnet-jax[train]'"
  )
  # It is imported by what says so.
  failed.pop("bitnet_jax.data.sources.planetoid_tfds")
  for name, text in failed.items():
    assert "pip install 'bitnet-jax[" in text, name
  for name in ("export", "inference", "convert", "nnx", "models"):
    assert found[f"bitnet_jax.{name}"] is None


def test_program_without_extras_ends_with_one_line():
  program = pathlib.Path(__file__).parents[1] / "experiments" / "evaluate.py"
  run = "import runpy, sys; sys.modules['tqdm'] = None; sys.argv = ['a'];"
  done = subprocess.run(
    [sys.executable, "-c", f"{run} runpy.run_path({str(program)!r})"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1
  assert done.stderr == (
    "error: bitnet_jax.train needs tqdm: pip install 'bitnet-jax[train]'\n"
  )
