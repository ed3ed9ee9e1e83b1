"""One step of every family is the same on any mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bitnet_jax import BitDense
from bitnet_jax.layers.introspection import bit_layers, with_codes
from bitnet_jax.ops.packing import unpacked
from bitnet_jax.train.build import build
from bitnet_jax.train.devices.gathering import shared_codes
from bitnet_jax.train.devices.mesh import make_mesh, place_batch

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)]
RECIPES = ("float", "b158", "b158_median")

_BLOCKS = {
  "model__hidden": 32,
  "model__num_layers": 2,
  "model__num_heads": 8,
  "model__num_kv_heads": 8,
  "model__mlp_width": 64,
}
_TEXT = _BLOCKS | {
  "data__seq_len": 24,
  "data__tokenizer": "bpe",
  "data__vocab_size": 512,
  "model__max_length": 32,
}
FAMILIES = {
  "digits_mlp": {"model__depth": 2, "model__width": 32},
  "digits_cnn": {"model__channels": (8, 16), "model__dense_width": 32},
  "digits_vit": _BLOCKS,
  "karate_gnn": {"data__batch_size": 1, "data__eval_batch_size": None},
  "graphs_gnn": {},
  "docstrings_mlp": {},
  "pydoc_decoder": _TEXT,
  "pydoc_encoder": _TEXT,
  "pydoc_encoder_decoder": _TEXT,
}
# The default tests take these; the slow ones take all.
FEW = [
  ("digits_mlp", "b158", (1, 8, 1)),
]


def one_step(config):
  """Returns loss, gradients (as Adam's first moment has them), and codes."""
  experiment = build(config)
  with experiment.activate():
    state = experiment.init()
    codes = jax.jit(lambda p: codes_of(experiment, p))(state.params)
    batch = place_batch(
      experiment.data.train_batch(0),
      experiment.mesh,
      full_graph=experiment.full_graph,
    )
    step = experiment.train_step()
    state, metrics = step(state, batch, experiment.train_key(), None)
  leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
  moments = {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in leaves
    if ".mu" in jax.tree_util.keystr(path)
  }
  return float(metrics["loss"]), moments, jax.tree.map(np.asarray, codes)


def codes_of(experiment, params):
  codes = shared_codes(params=params, **experiment.kernels())
  layers = {layer.path: layer for layer in experiment.layers}
  return {
    path: unpacked(q).replace(latent=layers[path].kernel(params))
    for path, q in codes.items()
  }


@pytest.fixture(scope="module")
def on_one_device():
  return {}


def cases():
  for name in FAMILIES:
    for recipe in RECIPES:
      # One mesh is enough for the median beside the mean.
      for mesh in MESHES if recipe != "b158_median" else MESHES[2:3]:
        case = (name, recipe, mesh)
        yield pytest.param(
          *case,
          marks=[pytest.mark.slow] * (case not in FEW),
          id=f"{name}-{recipe}-{'x'.join(map(str, mesh))}",
        )


@pytest.mark.parametrize(("name", "recipe", "mesh"), [*cases()])
def test_step_is_that_of_one_device(
  make_config, on_one_device, name, recipe, mesh
):
  overrides = FAMILIES[name] | {
    "quant__recipe": recipe,
    "model__dropout": 0.0,
    "optim__warmup_steps": 0,
  }
  overrides.setdefault("data__eval_batch_size", 96)
  if (name, recipe) not in on_one_device:
    on_one_device[name, recipe] = one_step(make_config(name, **overrides))
  loss, moments, codes = on_one_device[name, recipe]
  sizes = zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), mesh, strict=True)
  actual, others, other_codes = one_step(
    make_config(name, **overrides, **dict(sizes))
  )
  largest = max(np.abs(m).max() for m in moments.values())
  whole = np.sqrt(sum(np.sum(m**2) for m in moments.values()))
  assert moments.keys() == others.keys()
  assert largest > 0
  for key, moment in moments.items():
    if recipe == "float":
      np.testing.assert_allclose(
        others[key], moment, rtol=0, atol=1e-5 * largest, err_msg=key
      )
    else:
      # Biases of keys have no gradient but what rounding leaves.
      distance = np.linalg.norm(others[key] - moment)
      assert distance <= 0.02 * np.linalg.norm(moment) + 1e-6 * whole, key
  np.testing.assert_allclose(actual, loss, 1e-6 if recipe == "float" else 1e-4)
  assert codes.keys() == other_codes.keys()
  for path, q in codes.items():
    np.testing.assert_allclose(other_codes[path].scale, q.scale, 1e-5)
    differ = other_codes[path].qvalue != q.qvalue
    share = np.abs(q.latent / q.scale)
    assert np.all(np.abs(share - 0.5)[differ] < 1e-5), path


@pytest.mark.slow
def test_long_sequences_are_split_if_a_rule_says_so(make_config):
  overrides = _TEXT | {
    "quant__recipe": "float",
    "model__dropout": 0.0,
    "optim__warmup_steps": 0,
    "data__eval_batch_size": 96,
  }
  loss, moments, _ = one_step(make_config("pydoc_decoder", **overrides))
  config = make_config(
    "pydoc_decoder", **overrides, mesh__data=1, mesh__fsdp=2, mesh__tensor=4
  )
  config["sharding_rules"] = (("length", "tensor"), *config["sharding_rules"])
  experiment = build(config)
  with experiment.activate():
    lowered = experiment.train_step().lower(*experiment.step_arguments())
  # Batch, length, features: between blocks, and of the logits.
  assert '[{"data", "fsdp"}, {"tensor"}, {}]' in lowered.as_text()
  actual, others, _ = one_step(config)
  np.testing.assert_allclose(actual, loss, 1e-6)
  largest = max(np.abs(m).max() for m in moments.values())
  for key, moment in moments.items():
    np.testing.assert_allclose(
      others[key], moment, rtol=0, atol=1e-5 * largest, err_msg=key
    )


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_product_of_what_needs_no_rounding_is_exact(mesh):
  # Scales are powers of two, and activations stand on the grid of the codes.
  draw = np.random.default_rng(0)
  signs = draw.choice([-1.0, 1.0], (64, 32))
  x = draw.integers(-127, 128, (16, 64)).astype(np.float32)
  x[:, 0] = 127.0
  g = draw.choice([-2.0, 0.5, 1.0], (16, 32)).astype(np.float32)
  layer = BitDense(32, use_bias=False, recipe="bitnet_2b4t")
  layers = bit_layers(layer, x)
  data, fsdp, tensor = mesh
  devices = make_mesh(data=data, fsdp=fsdp, tensor=tensor)
  kernel = NamedSharding(devices, PartitionSpec("fsdp", "tensor"))
  rows = NamedSharding(devices, PartitionSpec(("data", "fsdp")))
  params = {"kernel": jax.device_put(np.float32(signs / 8), kernel)}

  @jax.jit
  def step(params, x, g):
    codes = shared_codes(layers, params, {"kernel": kernel})

    def apply(params, x):
      return layer.apply({"params": with_codes(params, codes)}, x)

    y, vjp = jax.vjp(apply, params, x)
    return y, *vjp(g)

  placed = [jax.device_put(array, rows) for array in (x, g)]
  y, dw, dx = step(params, *placed)
  np.testing.assert_array_equal(y, x @ signs / 8)
  np.testing.assert_array_equal(dx, g @ signs.T / 8)
  np.testing.assert_array_equal(dw["kernel"], x.T @ g)
