"""What importing the package gives, and what it leaves alone."""

import json
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
seconds = {"flax": before - start, "package": time.perf_counter() - before}
print(json.dumps({"modules": sorted(sys.modules), "seconds": seconds}))
"""
PUBLIC = (
  "BitConv",
  "BitDense",
  "BitDenseGeneral",
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
