"""Times products and scale measures side by side, on any backend.

python experiments/benchmark.py --suite=median
python experiments/benchmark.py --suite=compute

median: the exact median by counting against sorting, and against the mean.
compute: products of codes in int8 and in float, for shapes of both kinds; what
compute="auto" chooses is read off this table.

Variants are timed in turn, so that noise hits all of them alike. Prints medians
with quartiles in milliseconds, and the ratio of each to the first.
"""

import json
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bitnet_jax.ops import bit_conv, bit_dot
from bitnet_jax.quantizers import RECIPES
from bitnet_jax.quantizers.measures import MEASURES
from bitnet_jax.quantizers.recipe import Recipe
from bitnet_jax.train import records, runner

_REPEATS = flags.DEFINE_integer("repeats", 15, "Timed rounds.", lower_bound=3)
_OUTPUT = flags.DEFINE_string("output", None, "JSON lines are added to this.")

DOTS = (
  (2048, 1024, 4096),
  (1024, 1024, 1024),
  (128, 784, 128),
  (128, 512, 512),
  (8, 4096, 4096),
  (2, 4096, 4096),
  (1, 4096, 4096),
)
CONVS = (
  (128, 28, 1, 16),
  (128, 32, 3, 32),
  (128, 16, 4, 32),
  (128, 16, 8, 32),
  (128, 14, 16, 32),
  (64, 16, 64, 64),
  (64, 16, 128, 128),
)


def compare(variants: dict, *args) -> dict[str, dict[str, float]]:
  """Times jitted functions in turn.

  Args:
    variants: functions by name; the first is what the others are compared to.
    *args: their arguments.

  Returns:
    For each name the quartiles in milliseconds, and the ratio of medians.
  """
  compiled = {name: jax.jit(f) for name, f in variants.items()}
  for f in compiled.values():
    jax.block_until_ready(f(*args))
  times = {name: [] for name in compiled}
  for _ in range(_REPEATS.value):
    for name, f in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(f(*args))
      times[name].append(1e3 * (time.perf_counter() - start))
  quartiles = {n: np.percentile(t, (25, 50, 75)) for n, t in times.items()}
  base = quartiles[next(iter(variants))][1]
  return {
    name: {"q1": q1, "median": q2, "q3": q3, "ratio": q2 / base}
    for name, (q1, q2, q3) in quartiles.items()
  }


def run_median():
  """Yields (case, timings) of measures of a weight."""
  for n in (10**5, 10**6, 4 * 10**6):
    w = jax.random.normal(jax.random.key(0), (n,))
    yield (
      f"{n:,} weights",
      compare(
        {
          "jnp.median": lambda w: jnp.median(jnp.abs(w)),
          "absmedian": lambda w: MEASURES["absmedian"](w, (0,)),
          "absmean": lambda w: MEASURES["absmean"](w, (0,)),
        },
        w,
      ),
    )


def run_compute():
  """Yields (case, timings) of products of ready-made codes."""
  base = RECIPES["bitnet_2b4t"]
  by_compute = {
    c: Recipe(base.weights, base.acts, None, compute=c)
    for c in ("float", "int8", "auto")
  }
  for rows, d_in, d_out in DOTS:
    x = jax.random.normal(jax.random.key(0), (rows, d_in))
    w = jax.random.normal(jax.random.key(1), (d_in, d_out))
    variants = {
      name: lambda x, w, recipe=recipe: bit_dot(x, w, recipe)
      for name, recipe in by_compute.items()
    }
    yield f"dot {rows} x {d_in} x {d_out}", compare(variants, x, w)
  for batch, side, c_in, c_out in CONVS:
    x = jax.random.normal(jax.random.key(0), (batch, side, side, c_in))
    w = jax.random.normal(jax.random.key(1), (3, 3, c_in, c_out))
    variants = {
      name: lambda x, w, recipe=recipe: bit_conv(
        x, w, recipe, window_strides=(1, 1), padding="SAME"
      )
      for name, recipe in by_compute.items()
    }
    yield (
      f"conv {batch} x {side}x{side}, {c_in} to {c_out}",
      compare(variants, x, w),
    )


SUITES = {"median": run_median, "compute": run_compute}
_SUITE = flags.DEFINE_enum("suite", "compute", list(SUITES), "What to time.")


def main(argv):
  """Runs one suite and prints its table."""
  del argv
  print(f"jax {jax.__version__}, {records.device()}, {platform.machine()}")
  for case, timings in SUITES[_SUITE.value]():
    print(case)
    for name, t in timings.items():
      print(
        f"  {name:10} {t['median']:9.3f} ms  ({t['q1']:.3f} to {t['q3']:.3f})"
        f"  x{t['ratio']:.3f}",
        flush=True,
      )
    if _OUTPUT.value:
      record = {
        "suite": _SUITE.value,
        "case": case,
        "timings": timings,
        "device": records.device(),
        "versions": records.versions(),
      }
      with open(_OUTPUT.value, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
  app.run(main, flags_parser=runner.parse_flags)
