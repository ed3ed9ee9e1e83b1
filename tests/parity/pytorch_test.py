"""Our layer against the authors' PyTorch layer and that of transformers."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax import RECIPES, BitDense
from tests.parity import goldens

TESTDATA = pathlib.Path(__file__).parents[1] / "testdata"
# Relative to the largest entry: sums of float32 in another order.
TOLERANCE = 1e-5
NEAR_HALF_CASES = 50
# Every case is a program of its own to compile.
QUICK_CASES = 16
CASES = {"bitlinear": 64, "bitnet_transformers": 52}


@pytest.fixture(scope="module")
def cases():
  return {name: goldens.load(TESTDATA / f"{name}.npz") for name in CASES}


def recipe_of(name, case):
  if name == "bitnet_transformers":
    return RECIPES["bitnet_2b4t"]
  measure = goldens.MEASURES[case["measure"]]
  recipe = RECIPES["bitlinear"]
  recipe = dataclasses.replace(
    recipe, weights=dataclasses.replace(recipe.weights, measure=measure)
  )
  match goldens.SIDES[case["sides"]]:
    case "acts":
      return dataclasses.replace(recipe, weights=None)
    case "weights":
      return dataclasses.replace(recipe, acts=None, norm=None)
  return recipe


def run(recipe, case):
  """Our output and gradients, and the dtype that they are returned in."""
  dtype = jnp.bfloat16 if case["bfloat16"] else jnp.float32
  params = {"kernel": jnp.asarray(case["w"], dtype)}
  if "bias" in case:
    params["bias"] = jnp.asarray(case["bias"], dtype)
  layer = BitDense(
    case["w"].shape[1],
    use_bias="bias" in case,
    param_dtype=dtype,
    recipe=recipe,
  )
  x, g = jnp.asarray(case["x"], dtype), jnp.asarray(case["g"], dtype)

  @jax.jit
  def gradients(params, x):
    y, vjp = jax.vjp(lambda p, x: layer.apply({"params": p}, x), params, x)
    return y, *vjp(g)

  y, dparams, dx = gradients(params, x)
  results = {"y": y, "dx": dx, "dw": dparams["kernel"]}
  if "bias" in case:
    results["dbias"] = dparams["bias"]
  return results, dtype


def assert_agree(actual, expected, dtype, kept=...):
  """Equality up to the tolerance, and then to the rounding of the dtype."""
  expected = np.asarray(expected, np.float64)
  slack = TOLERANCE * np.max(np.abs(expected), initial=0)
  low, high = (
    np.asarray((expected + s).astype(np.float32).astype(dtype), np.float64)
    for s in (-slack, slack)
  )
  actual = np.asarray(actual, np.float64)
  assert actual.shape == expected.shape
  # Rounding is monotonic, so it maps the interval into the rounded one.
  assert np.all(actual[kept] >= low[kept])
  assert np.all(actual[kept] <= high[kept])


@pytest.mark.parametrize("name", CASES)
def test_few_cases_are_decided_by_the_last_bit(cases, name):
  near = [
    c["near_half_weight"] or c["near_half_tokens"].any() for c in cases[name]
  ]
  assert len(near) == CASES[name]
  assert sum(near) * NEAR_HALF_CASES <= len(near)


@pytest.mark.parametrize(
  "name, i",
  [
    pytest.param(name, i, marks=[pytest.mark.slow] * (i >= QUICK_CASES))
    for name, count in CASES.items()
    for i in range(count)
  ],
)
def test_layer_computes_what_the_pytorch_layer_does(cases, name, i):
  case = cases[name][i]
  actual, dtype = run(recipe_of(name, case), case)
  if case["near_half_weight"]:
    return  # All outputs depend on that weight; such cases are counted above.
  others = ~case["near_half_tokens"]
  for key in ("y", "dx"):
    assert_agree(actual[key], case[key], dtype, others)
  if "packed_y" in case:
    assert_agree(actual["y"], case["packed_y"], dtype, others)
  if others.all():
    assert_agree(actual["dw"], case["dw"], dtype)
    if "dbias" in case:
      assert_agree(actual["dbias"], case["dbias"], dtype)


@pytest.mark.parametrize("name", CASES)
def test_goldens_are_what_the_pytorch_layers_compute_today(cases, name):
  reason = "the PyTorch layers are not installed; their results are stored"
  for module in ("torch", "bitlinear", "transformers"):
    pytest.importorskip(module, reason=reason)
  from tests.parity import make_goldens

  for stored, made in zip(cases[name], make_goldens.make(name), strict=True):
    for key in goldens.ARRAYS:
      if key in stored:
        # Another build of PyTorch may sum in another order.
        largest = np.max(np.abs(made[key]), initial=0)
        np.testing.assert_allclose(
          stored[key], made[key], rtol=0, atol=TOLERANCE * largest
        )
