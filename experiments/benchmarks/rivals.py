"""Benchmark suite of writing: ours against llama.cpp, on the same weights."""

import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import Case, Run
from benchmarks.workers import Worker
from bitnet_jax.export import write_gguf
from bitnet_jax.inference import freeze, generate
from bitnet_jax.models.decoder import Decoder, DecoderConfig

RULES = (("head", "float"), (".*", "bitnet_2b4t"))
# Hidden, layers, heads and MLP width; the first is that of "BitNet b1.58
# Reloaded".
SIZES = ((256, 4, 4, 14336), (1024, 12, 16, 2816), (2048, 16, 16, 5632))
VOCABULARY, LENGTH = 8000, 1024
PROMPT, WRITTEN, LONG_PROMPT = 8, 64, 512
_READ = 1 << 29  # bytes that are read to measure the bandwidth


def rivals(llama: Worker | None) -> Iterator[Case]:
  """Milliseconds a written token, and a long prompt."""
  rng = np.random.default_rng(0)
  for hidden, layers, heads, width in SIZES:
    sizes: dict[str, Any] = dict(
      hidden=hidden, num_layers=layers, mlp_width=width
    )
    sizes |= dict(num_heads=heads, num_kv_heads=heads)
    cfg = DecoderConfig(vocab_size=VOCABULARY, max_length=LENGTH, **sizes)
    model = Decoder(cfg, RULES)
    variables = random_variables(model, rng)
    megabytes = read_bytes(variables) / 1e6
    name = f"{hidden} x {layers}, {megabytes:.0f} MB a token"
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, "model.gguf")
      if llama is not None:
        write_gguf(path, model, variables)
      for prompt, tokens in ((PROMPT, WRITTEN), (LONG_PROMPT, 1)):
        ids = rng.integers(1, VOCABULARY, prompt).tolist()
        runs = {"ours": _ours(model, variables, ids, tokens)}
        ratios = []
        if tokens > 1:
          runs["read"] = _reader(megabytes * 1e6)
          ratios.append(("ours", "read"))
        if llama is not None:
          options = dict(prompt=ids, tokens=tokens, length=LENGTH)
          theirs = llama.make(path=str(path), **options)
          runs["llama.cpp"] = _per(tokens, theirs)
          ratios.append(("ours", "llama.cpp"))
        what = f"prompt of {prompt}" if tokens == 1 else "a token"
        yield Case(f"{name}: {what}", runs, ratios)


def random_variables(model: Decoder, rng: np.random.Generator) -> Any:
  """Returns frozen variables with random codes and embeddings."""
  tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)

  def frozen(key, tokens):
    return freeze(nn.unbox(model.init(key, tokens)), model)

  key = jax.eval_shape(lambda: jax.random.key(0))
  shapes = jax.eval_shape(frozen, key, tokens)
  digits = np.array(
    [sum(d << 2 * i for i, d in enumerate(ds)) for ds in np.ndindex(*[3] * 4)],
    np.uint8,
  )

  def drawn(path, leaf):
    if leaf.dtype == jnp.uint8:
      return jnp.asarray(rng.choice(digits, leaf.shape))
    name = jax.tree_util.keystr(path)
    if "scale" in name and "norm" in name:
      return jnp.ones(leaf.shape, leaf.dtype)
    if leaf.ndim == 1 or leaf.size == leaf.shape[0]:
      return jnp.full(leaf.shape, 0.02, leaf.dtype)
    return jnp.asarray(0.02 * rng.standard_normal(leaf.shape, np.float32))

  return jax.tree_util.tree_map_with_path(drawn, shapes)


def read_bytes(variables: Any) -> int:
  """Returns how many bytes of the variables one token needs."""
  params = dict(variables["params"])
  del params["embed"]
  return sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def _ours(model, variables, ids, tokens) -> Run:
  def run(calls):
    start = time.perf_counter()
    for _ in range(calls):
      generate(model, variables, [ids], max_new_tokens=tokens)
    return (time.perf_counter() - start) / tokens

  return run


def _per(tokens, run) -> Run:
  return lambda calls: run(calls) / tokens


def _reader(size) -> Run:
  """Returns a timer of reading so many bytes from memory with all cores."""
  threads = os.cpu_count() or 1
  arrays = [np.ones(_READ // 8 // threads, np.int64) for _ in range(threads)]

  def run(calls):
    workers = [threading.Thread(target=a.sum) for a in arrays]
    start = time.perf_counter()
    for worker in workers:
      worker.start()
    for worker in workers:
      worker.join()
    return (time.perf_counter() - start) * calls * size / _READ

  return run
