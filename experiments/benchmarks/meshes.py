"""Benchmark suite of training steps on all devices."""

import math
from collections.abc import Iterator

import jax

from benchmarks.timing import Case
from benchmarks.training import config_step
from benchmarks.workers import Worker

CONFIG = "pydoc_decoder:B"
SIZES = {
  "data.tokenizer": "bytes",
  "data.vocab_size": 264,  # One more than there are: every axis divides it.
  "data.batch_size": 16,
  "data.seq_len": 128,
}


def mesh(torch: Worker | None) -> Iterator[Case]:
  """A decoder in float and ternary, in bfloat16 and float32."""
  del torch
  count = jax.device_count()
  half = 2 ** (int(math.log2(count)) // 2)
  shapes = {(count, 1, 1), (1, count, 1), (1, count // half, half)}
  for shape in sorted(shapes):
    sizes = dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
    on_mesh = {f"mesh.{axis}": size for axis, size in sizes.items()}
    runs = {
      f"{recipe}, {dtype}": config_step(
        CONFIG,
        SIZES | on_mesh | {"quant.recipe": recipe, "model.dtype": dtype},
      )
      for dtype in ("bfloat16", "float32")
      for recipe in ("float", "b158")
    }
    ratios = [
      ("b158, bfloat16", "float, bfloat16"),
      ("b158, float32", "float, float32"),
      ("b158, float32", "float, bfloat16"),
    ]
    yield Case(f"decoder on {sizes}", runs, ratios)
