"""NaN, infinity and overflow: no program that users compile hides them.

XLA's CPU backend drops NaN from a maximum of floats where it vectorizes it, so
this is asked of many sizes, with optimizations on.
"""

import contextlib
import dataclasses
import functools
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from bitnet_jax import (
  RECIPES,
  BitConv,
  BitDense,
  BitDenseGeneral,
  Quantizer,
  Recipe,
)
from bitnet_jax import nnx as bit_nnx
from bitnet_jax.inference import freeze
from bitnet_jax.ops import lowering
from bitnet_jax.ops.cpu import library

FEATURES = 8
TERNARY = (-1, 1)
MODES = {
  **{name: RECIPES[name] for name in RECIPES if name != "float"},
  "clipped": dataclasses.replace(RECIPES["b158"], ste="clipped"),
  "rms_norm, one scale": Recipe(
    acts=Quantizer("absmax", (-128, 127)), norm="rms_norm"
  ),
  "channels": Recipe(Quantizer("absmax", TERNARY, axis=0), norm=None),
  "medians": Recipe(
    Quantizer("absmedian", TERNARY, axis=0),
    Quantizer("absmedian", (-8, 7), axis=-1),
  ),
  "means, at random": Recipe(
    Quantizer("absmean", TERNARY, rounding="stochastic"),
    Quantizer("absmean", (-8, 7), axis=-1, rounding="stochastic"),
  ),
  "backward in int8": dataclasses.replace(RECIPES["b158"], backward="int8"),
}
SIZES = ((1, 1), (1, 64), (8, 64), (16, 256), (64, 64), (33, 257), (257, 1024))
IMAGES = ((1, 4, 4, 1), (2, 8, 8, 3), (3, 16, 16, 8))
DTYPES = ("float32", "bfloat16", "float16")
DENSE = ("BitDense", "BitDenseGeneral", "BitLinear", "BitLinearGeneral")
CONV = ("BitConv", "BitConv of NNX")
FROZEN = ("frozen BitDense", "frozen BitConv")
BAD_INPUTS = (np.nan, np.inf, -np.inf, 1e20)
BAD_WEIGHTS = (np.nan, np.inf)


@dataclasses.dataclass(frozen=True)
class Case:
  """What is asked of one layer; ``strength`` says that it is phased in."""

  layer: str
  mode: str
  size: tuple[int, ...]
  dtype: str = "float32"
  compute: str = "int8"
  strength: float | None = None

  @property
  def recipe(self):
    recipe = MODES[self.mode]
    if self.strength is not None or not recipe.is_integer:
      return recipe
    return dataclasses.replace(recipe, compute=self.compute)

  @property
  def kernel_shape(self):
    window = (3,) * (len(self.size) - 2)
    return (*window, self.size[-1], FEATURES)


def layers_of(modes, sizes, dtypes=DTYPES, layers=("BitDense",)):
  return [
    Case(layer, mode, size, dtype, compute)
    for layer, mode, size, dtype in itertools.product(
      layers, modes, sizes, dtypes
    )
    for compute in ("int8", "float")
    if compute == "int8" or MODES[mode].is_integer
  ]


NAMED = [name for name in RECIPES if name != "float"]
FAST = [mode for mode in MODES if "median" not in mode]
# Few, since each compiles; programs that share an input share most of that.
QUICK = [
  *layers_of(("b158", *NAMED[3:]), [(64, 64)], ["float32"]),
  *layers_of(("b158", "int8"), [(64, 64)], ["float32"], DENSE[1:]),
  *layers_of(("int8",), [(33, 257)], ["bfloat16"]),
  *layers_of(("b158",), [(1, 64)], ["float32"], FROZEN[:1]),
  *layers_of(("b158", "int8"), [(3, 16, 16, 8)], ["float32"], CONV),
  Case("BitDense", "clipped", (64, 64), strength=0.5),
]
QUICK_TRAINED = [Case("BitDense", "clipped", (64, 64))]
QUICK_SHARDED = layers_of(("int8",), [(64, 64)], ["float32"])
ALL = list(
  dict.fromkeys(
    [
      *QUICK,
      *layers_of(FAST, SIZES, ["float32"]),
      *layers_of(FAST, [(16, 256), (33, 257)], DTYPES[1:]),
      *layers_of(MODES, [(64, 64)], ["float32"]),
      *layers_of(NAMED, [(64, 64)], ["float32"], DENSE[1:]),
      *layers_of(NAMED, IMAGES, ["float32"], CONV),
      *layers_of(["b158", "int4"], IMAGES, ["bfloat16"], CONV),
      *layers_of(["b158", "bitnet_2b4t"], SIZES, layers=FROZEN[:1]),
      *layers_of(["b158"], IMAGES, ["float32"], FROZEN[1:]),
      *(
        Case("BitDense", mode, size, dtype, strength=0.5)
        for mode in FAST
        for size, dtype in zip([*SIZES[3:]], [*DTYPES, "float32"], strict=True)
      ),
    ]
  )
)
TRAINED = [
  *layers_of(MODES, [(64, 64)], ["float32"]),
  *layers_of(["b158", "clipped"], [(33, 257)], ["bfloat16"]),
  *layers_of(["b158", "clipped"], [(3, 16, 16, 8)], ["float32"], CONV[:1]),
  Case("BitDense", "clipped", (64, 64), strength=0.5),
]
SHARDED = [
  *layers_of(NAMED, [(64, 64), (16, 256)], ["float32", "bfloat16"]),
  *layers_of(["b158", "int8"], [(4, 16, 16, 8)], ["float32"], CONV[:1]),
]


def apply(case, x, w):
  """Runs the layer of a case with a kernel."""
  recipe, kwargs = case.recipe, {"strength": case.strength}
  key = jax.random.key(0)
  name = case.layer.removeprefix("frozen ")
  window = case.kernel_shape[:-2]
  linen = {
    "BitDense": lambda: BitDense(FEATURES, use_bias=False, recipe=recipe),
    "BitDenseGeneral": lambda: BitDenseGeneral(
      FEATURES, use_bias=False, recipe=recipe
    ),
    "BitConv": lambda: BitConv(FEATURES, window, use_bias=False, recipe=recipe),
  }
  if name in linen:
    layer, variables = linen[name](), {"params": {"kernel": w}}
    if name != case.layer:
      variables = freeze(variables, layer, x)
    return layer.apply(variables, x, rngs={"quantize": key}, **kwargs)
  options = dict(use_bias=False, recipe=recipe, rngs=nnx.Rngs(0, quantize=key))
  sizes = case.size[-1], FEATURES
  layer = {
    "BitLinear": lambda: bit_nnx.BitLinear(*sizes, **options),
    "BitLinearGeneral": lambda: bit_nnx.BitLinearGeneral(*sizes, **options),
    "BitConv of NNX": lambda: bit_nnx.BitConv(*sizes, window, **options),
  }[name]()
  layer.kernel[...] = w
  return layer(x, **kwargs)


def gradients(case, x, w):
  """Loss and gradients of a case, for a loss that is NaN where outputs are."""

  def loss(x, w):
    return jnp.sum(jnp.square(apply(case, x, w)))

  value, (dx, dw) = jax.value_and_grad(loss, (0, 1))(x, w)
  return {"loss": value, "dx": dx.astype(jnp.float32), "dw": dw}


def draw(shape, dtype="float32"):
  rng = np.random.default_rng(len(shape) + shape[-1])
  return rng.normal(size=shape).astype(jnp.dtype(dtype))


def spoiled(a, bad):
  """Returns the array with a bad value in its middle."""
  a = a.copy()
  a[tuple(n // 2 for n in a.shape)] = bad
  return a


def inputs_of(case):
  """What to run a case with: which operand is bad, by what, and both."""
  x, w = draw(case.size, case.dtype), draw(case.kernel_shape)
  yield None, 0.0, (x, w)
  for bad in BAD_INPUTS:
    yield "x", float(np.asarray(bad, x.dtype)), (spoiled(x, bad), w)
  for bad in BAD_WEIGHTS:
    yield "w", bad, (x, spoiled(w, bad))


def bad_places(case, operand, bad):
  """Which outputs must be bad, as an array that broadcasts to them."""
  recipe, ndim = case.recipe, len(case.size)
  everything = np.ones((1,) * ndim, bool)
  if operand == "w":
    if recipe.weights.axis is None:
      return everything
    return (np.arange(FEATURES) == FEATURES // 2).reshape(
      (1,) * (ndim - 1) + (-1,)
    )
  # Of a single value a layer norm makes zero, however large it is.
  alone = np.prod(case.size[1:]) == 1 and recipe.norm == "layer_norm"
  if np.isfinite(bad) and (recipe.norm is None or alone):
    return ~everything
  if recipe.acts is not None and recipe.acts.axis is None:
    return everything
  places = np.ix_(*(np.arange(n) for n in case.size[:-1]))
  is_bad = places[0] == case.size[0] // 2
  if recipe.acts is None and recipe.norm is None:
    # Only what its windows reach.
    for n, place in zip(case.size[1:-1], places[1:], strict=True):
      is_bad = is_bad & (abs(place - n // 2) <= 1)
  return is_bad[..., None]


def fault_of_outputs(case, operand, bad, clean, found):
  """What is wrong with outputs, if anything."""
  places = np.broadcast_to(bad_places(case, operand, bad), found.shape)
  is_bad = np.isnan(found)
  if case.recipe.acts is None:
    is_bad = ~np.isfinite(found)  # Infinities may stay what they are.
  if not is_bad[places].all():
    return "hidden"
  if not np.isfinite(found[~places]).all():
    return "spread"
  # A large value that is none too large is a value like others.
  if places.any() and not np.array_equal(found[~places], clean[~places]):
    return "felt elsewhere"
  return None


def fault_of_gradients(case, operand, bad, clean, found):
  """What is wrong with loss and gradients, if anything."""
  if not bad_places(case, operand, bad).any():
    return None
  # Zeros are those that ``ste="clipped"`` makes.
  good = {
    name: np.isfinite(found[name]) & (clean[name] != 0)
    for name in (["dw"] if operand == "x" else ["dx", "dw"])
  }
  if operand == "w" and case.recipe.weights.axis is not None:
    good["dw"] = good["dw"][..., FEATURES // 2]
  hidden = [name for name, is_good in good.items() if is_good.any()]
  if np.isfinite(found["loss"]) or hidden:
    return f"hidden from loss or {hidden}"
  return None


def faults(cases, function=apply, judge=fault_of_outputs, wrap=jax.jit):
  """Names what is wrong with any case; cases of one shape share a program."""
  found = []
  groups = {}
  for case in cases:
    groups.setdefault((case.size, case.dtype), []).append(case)
  for group in groups.values():
    program = wrap(lambda x, w, group=group: [function(c, x, w) for c in group])
    clean = None
    for operand, bad, arguments in inputs_of(group[0]):
      results = jax.tree.map(np.asarray, program(*map(jnp.asarray, arguments)))
      if operand is None:
        clean = results
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(results))
        continue
      for case, before, after in zip(group, clean, results, strict=True):
        fault = judge(case, operand, bad, before, after)
        if fault:
          found.append(f"{case}: {bad} in {operand} is {fault}")
  return found


def sharded(function):
  """Jits a function of operands that are split, the contracted axis too."""
  mesh = jax.make_mesh(
    (4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2
  )

  def on_mesh(x, w):
    middle = (None,) * (x.ndim - 2)
    return jitted(
      jax.device_put(x, NamedSharding(mesh, P("data", *middle, "fsdp"))),
      jax.device_put(w, NamedSharding(mesh, P(*middle, "fsdp", None))),
    )

  jitted = jax.jit(function)
  return on_mesh


def find(cases, trained, split, eager=()):
  """Returns faults by what the cases ran on; ``None`` without kernels."""
  found = {"mesh": faults(split, wrap=sharded), "kernels": None}
  with mock.patch("jax.device_count", lambda: 1):
    with lowering.portable():
      found["XLA"] = [
        *faults(cases),
        *faults(trained, gradients, fault_of_gradients),
        *faults(eager, wrap=lambda function: function),
      ]
    if library.is_there():
      # Rows are rounded by kernels in float32; products in any dtype.
      taken = [
        case
        for case in cases
        if case.dtype == "float32" or case.layer in FROZEN
      ]
      found["kernels"] = [
        *faults(taken),
        *faults(trained, gradients, fault_of_gradients),
      ]
  return found


def find_in_few():
  return find(QUICK, QUICK_TRAINED, QUICK_SHARDED)


def find_in_all():
  return find(ALL, TRAINED, SHARDED, eager=QUICK)


@pytest.fixture(scope="module")
def run(optimized, request):
  """Calls a function in a process that finds kernels, if they can be built."""

  def run_with_kernels(function):
    with pytest.MonkeyPatch.context() as patch:
      with contextlib.suppress(pytest.skip.Exception):
        folder = request.getfixturevalue("cache_with_kernels")
        patch.setenv("XDG_CACHE_HOME", str(folder))
      return optimized(function)

  return functools.cache(run_with_kernels)


@pytest.mark.parametrize("where", ["XLA", "kernels", "mesh"])
@pytest.mark.parametrize(
  "function", [find_in_few, pytest.param(find_in_all, marks=pytest.mark.slow)]
)
def test_bad_value_makes_its_outputs_bad_and_no_others(run, function, where):
  found = run(function)[where]
  if found is None:
    pytest.skip("there are no kernels")
  assert found == []


def test_table_has_all_layers_recipes_sizes_and_dtypes():
  assert len(ALL) >= 300
  assert len({case.size for case in ALL}) == len((*SIZES, *IMAGES))
  assert {case.mode for case in ALL} == set(MODES)
  assert {case.layer for case in ALL} == {*DENSE, *CONV, *FROZEN}
  assert {case.dtype for case in ALL} == set(DTYPES)
