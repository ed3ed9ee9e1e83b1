"""Benchmark suites of whole training steps and of program starts."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import Case, Run
from benchmarks.workers import Worker
from bitnet_jax import RECIPES, BitDense, Recipe
from bitnet_jax.layers import bit_layers
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.ops import lowering
from bitnet_jax.ops.cpu import library
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.mesh import place_batch
from bitnet_jax.train.state import TrainState
from bitnet_jax.train.step import make_train_step
from bitnet_jax.train.tasks.facts import DataFacts, specs_of
from bitnet_jax.train.tasks.token_prediction import (
  TokenOptions,
  TokenPrediction,
)

ROOT = pathlib.Path(__file__).parents[2]
ROUNDED = "b158, gradients bfloat16"
ALONE = "b158, without kernels"  # Timed if native kernels are compiled.
# Name in a case: name of a recipe, and its backward products.
KINDS = {
  "float": ("float", "float"),
  "b158": ("b158", "float"),
  "b158_median": ("b158_median", "float"),
  ROUNDED: ("b158", "bfloat16"),
}
# Layers in PyTorch, and the kinds whose times are divided by theirs.
TORCH = {
  "Linear": ("float",),
  "AbsMean": ("b158", ROUNDED),
  "AbsMedian": ("b158_median",),
}
BLOCKS, WIDTH, HIDDEN, TOKENS = 4, 256, 1024, 2048
# A decoder with rotary positions, gated feed-forward layers and RMS norms, all
# of its linear layers quantized, as in "BitNet b1.58 Reloaded".
HEADS, VOCABULARY, SEQUENCES, LENGTH = 4, 1000, 8, 256


def updating(step, state: Any, *args: Any) -> Run:
  """Returns a timer of ``state = step(state, *args)``; donates the state."""
  kept = [state]

  def run(calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
      kept[0], metrics = step(kept[0], *args)
      jax.block_until_ready(metrics)
    jax.block_until_ready(kept[0])
    return time.perf_counter() - start

  return run


def images(folder: pathlib.Path) -> pathlib.Path:
  """Writes a file of random images with the size of MNIST's."""
  rng = np.random.default_rng(0)
  path = folder / "images.npz"
  arrays: dict[str, Any] = {}
  for split, n in (("train", 2048), ("test", 256)):
    arrays[f"x_{split}"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
    arrays[f"y_{split}"] = rng.integers(0, 10, n)
  np.savez(path, **arrays)
  return path


def config_step(name: str, overrides: Mapping[str, Any]) -> Run:
  """Returns a timer of the training step of a config.

  Args:
    name: name of the config, optionally with ":VARIANT".
    overrides: values by dotted key.
  """
  file, colon, variant = name.partition(":")
  path = f"{ROOT / 'configs' / file}.py{colon}{variant}"
  config = runner.load_config(path, dict(overrides))
  experiment = build(config)
  with experiment.activate():
    batch = place_batch(experiment.data.train_batch(0), experiment.mesh)
    state, key = experiment.init(), experiment.train_key()
    jitted: Any = experiment.train_step()
    compiled = jitted.lower(state, batch, key).compile()
  return updating(compiled, state, batch, key)


class Stack(nn.Module):
  """Feed-forward blocks with residual connections.

  Attributes:
    recipe: of all layers.
  """

  recipe: Recipe

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [tokens, WIDTH] to the same."""
    for _ in range(BLOCKS):
      h = nn.relu(BitDense(HIDDEN, recipe=self.recipe)(x))
      x = x + BitDense(WIDTH, recipe=self.recipe)(h)
    return x


class Regression:
  """A task: the mean squared error of a model."""

  def __init__(self, model: nn.Module):
    self.model = model

  def init(self, key):
    """Returns the variables of the model."""
    return self.model.init(key, jnp.zeros((1, WIDTH)))

  def weight(self, batch):
    """Returns the number of targets."""
    return jnp.float32(batch["y"].size)

  def totals(self, params, variables, batch, **options):
    """Returns the squared error."""
    del options
    error = self.model.apply({"params": params}, batch["x"]) - batch["y"]
    weight = self.weight(batch)
    return {"loss": jnp.sum(error**2), "weight": weight}, variables


def decoder_step(recipe: Recipe) -> Run:
  """Returns a timer of a training step of a decoder."""
  sizes = DecoderConfig(
    hidden=WIDTH,
    num_layers=BLOCKS,
    num_heads=HEADS,
    num_kv_heads=HEADS,
    mlp_width=HIDDEN,
    rotary_base=1e4,
    max_length=LENGTH,
    scan_layers=False,
    vocab_size=VOCABULARY,
  )
  tokens = jax.random.randint(
    jax.random.key(0), (SEQUENCES, LENGTH + 1), 0, VOCABULARY
  )
  batch = {
    "tokens": tokens[:, :-1],
    "targets": tokens[:, 1:],
    "mask": jnp.ones((SEQUENCES, LENGTH)),
  }
  options = TokenOptions(label_smoothing=0.0, z_loss=0.0)
  model = Decoder(sizes, recipe)
  task = TokenPrediction(model, DataFacts(example=specs_of(batch)), options)
  return task_step(task, bit_layers(model, batch["tokens"]), batch)


def stack_step(recipe: Recipe) -> Run:
  """Returns a timer of a training step of a ``Stack``."""
  model = Stack(recipe)
  keys = jax.random.split(jax.random.key(0), 2)
  batch = {
    "x": jax.random.normal(keys[0], (TOKENS, WIDTH)),
    "y": jax.random.normal(keys[1], (TOKENS, WIDTH)),
  }
  return task_step(Regression(model), bit_layers(model, batch["x"]), batch)


def task_step(task: Any, layers: Any, batch: Any) -> Run:
  """Returns a timer of a training step of a task, with AdamW."""
  key = jax.random.key(1)
  params = nn.unbox(task.init(key))["params"]
  tx = optax.adamw(1e-3)
  state = TrainState(jnp.int32(0), params, tx.init(params), {})
  schedule = optax.constant_schedule(1e-3)
  step = make_train_step(task, tx, schedule, layers=layers)
  compiled = jax.jit(step, donate_argnums=0).lower(state, batch, key).compile()
  return updating(compiled, state, batch, key)


def step(torch: Worker | None) -> Iterator[Case]:
  """Whole training steps, updates of the parameters included."""
  with tempfile.TemporaryDirectory() as folder:
    source = images(pathlib.Path(folder))

    def of_config(name: str) -> Callable[[str, str], Run]:
      given = {"data.source": f"file:{source}"}
      return lambda recipe, backward: config_step(
        name, given | {"quant.recipe": recipe, "quant.backward": backward}
      )

    def of_recipe(make: Callable[[Recipe], Run]) -> Callable[[str, str], Run]:
      return lambda recipe, backward: make(
        dataclasses.replace(RECIPES[recipe], backward=backward)
      )

    cases = {
      "MNIST MLP": of_config("mnist_mlp"),
      "MNIST CNN": of_config("mnist_cnn"),
      "feed-forward stack": of_recipe(stack_step),
      "decoder": of_recipe(decoder_step),
    }
    in_torch: dict[str, dict[str, Any]] = {
      "MNIST MLP": dict(kind="mlp", sizes=[784, 128, 10], batch=128),
      "feed-forward stack": dict(
        kind="stack", blocks=BLOCKS, width=WIDTH, hidden=HIDDEN, tokens=TOKENS
      ),
      "decoder": dict(
        kind="decoder",
        blocks=BLOCKS,
        width=WIDTH,
        hidden=HIDDEN,
        heads=HEADS,
        vocabulary=VOCABULARY,
        batch=[SEQUENCES, LENGTH],
      ),
    }
    for name, make in cases.items():
      runs = {kind: make(*how) for kind, how in KINDS.items()}
      ratios = [("b158", "float"), ("b158_median", "b158"), (ROUNDED, "float")]
      if library.is_there():
        with lowering.portable():
          runs[ALONE] = make(*KINDS["b158"])
        ratios.append((ALONE, "float"))
      if torch and name in in_torch:
        for layer, kinds in TORCH.items():
          runs[f"torch {layer}"] = torch.make(**in_torch[name], layer=layer)
          ratios += [(kind, f"torch {layer}") for kind in kinds]
        if ALONE in runs:
          ratios.append((ALONE, "torch AbsMean"))
      yield Case(f"step of the {name}", runs, ratios)


def start(torch: Worker | None) -> Iterator[Case]:
  """Whole programs: one step of a config, with and without compiled code."""
  del torch
  with tempfile.TemporaryDirectory() as folder:
    runs = {
      "import jax, flax, optax": _python("import jax, flax.linen, optax"),
      "import bitnet_jax": _python("import bitnet_jax"),
      "import bitnet_jax.train.runner": _python(
        "import bitnet_jax.train.runner"
      ),
    }
    for config in ("digits_mlp", "digits_cnn"):
      first = pathlib.Path(folder) / config
      for name, cache in (("first", "false"), ("again", "true")):
        runs[f"{config}, {name}"] = _training(config, first, cache)
    yield Case(
      "start",
      runs,
      [(f"{c}, again", f"{c}, first") for c in ("digits_mlp", "digits_cnn")],
    )


def _python(code: str) -> Run:
  return lambda calls: _seconds(calls, lambda: ["-c", code], {})


def _training(config: str, folder: pathlib.Path, cache: str) -> Run:
  """Two steps, an evaluation and a checkpoint, in a new folder each time."""
  variables = {
    "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    "JAX_ENABLE_COMPILATION_CACHE": cache,
  }

  def arguments():
    workdir = tempfile.mkdtemp(dir=folder.parent)
    return [
      str(ROOT / "experiments" / "train.py"),
      f"--config={ROOT}/configs/{config}.py",
      f"--workdir={workdir}",
      "--config.total_steps=2",
    ]

  return lambda calls: _seconds(calls, arguments, variables)


def _seconds(calls, arguments, variables) -> float:
  began = time.perf_counter()
  for _ in range(calls):
    subprocess.run(
      [sys.executable, *arguments()],
      check=True,
      capture_output=True,
      env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )
  return time.perf_counter() - began
