"""Benchmark suite of frozen models: packed products, and generation."""

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Case, jitted, timed
from benchmarks.workers import Worker
from bitnet_jax import RECIPES, QTensor
from bitnet_jax.inference import freeze, generate
from bitnet_jax.models.decoder import Decoder, DecoderConfig
from bitnet_jax.ops import bit_dot, pack

SIDE = 4096
ROWS = (1, 2, 3, 4, 8, 16, 32, 64)
# The decoder of 48M parameters of "BitNet b1.58 Reloaded", see
# configs/reloaded_decoder.py.
DECODER = DecoderConfig(
  vocab_size=8000,
  hidden=256,
  num_layers=4,
  num_heads=4,
  num_kv_heads=4,
  mlp_width=14336,
  max_length=1024,
)
PROMPT, WRITTEN = 8, 32


def packed(torch: Worker | None) -> Iterator[Case]:
  """Products with packed weights, and a decoder that is frozen."""
  del torch
  yield from _products()
  yield from _decoders()


def _products() -> Iterator[Case]:
  recipe = RECIPES["bitnet_2b4t"]
  assert recipe.acts is not None
  assert recipe.weights is not None
  w = jax.random.normal(jax.random.key(1), (SIDE, SIDE))
  q = recipe.weights.quantize(w)
  frozen = QTensor(pack(q.codes), q.scale)
  for rows in ROWS:
    x = jax.random.normal(jax.random.key(0), (rows, SIDE))

    def multiply(x, w):
      return bit_dot(x, w, recipe)

    runs = {
      "float32": jitted(jnp.matmul, x, w),
      "codes": jitted(multiply, x, q),
      "packed": jitted(multiply, x, frozen),
    }
    ratios = [("packed", "float32"), ("packed", "codes")]
    yield Case(f"packed {rows} x {SIDE} x {SIDE}", runs, ratios)


def _decoders() -> Iterator[Case]:
  for batch in (1, 8):
    ids = np.random.default_rng(0).integers(1, 8000, (batch, PROMPT)).tolist()
    runs, held = {}, []
    for name, recipe in (("float32", "float"), ("frozen", "b158")):
      model = Decoder(DECODER, recipe)
      init = jax.jit(model.init)
      variables = nn.unbox(init(jax.random.key(0), jnp.zeros((1, 4), int)))
      if name == "frozen":
        variables = freeze(variables, model)
      megabytes = sum(a.nbytes for a in jax.tree.leaves(variables)) / 1e6
      held.append(f"{name} {megabytes:.0f} MB")
      write = functools.partial(generate, max_new_tokens=WRITTEN)
      runs[name] = timed(write, model, variables, ids)
    yield Case(
      f"write {WRITTEN} tokens, batch {batch} ({', '.join(held)})",
      runs,
      [("frozen", "float32")],
    )
