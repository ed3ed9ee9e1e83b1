"""What travels between the devices that a model is split over."""

import jax
import jax.numpy as jnp
import pytest

from bitnet_jax.analysis import programs
from bitnet_jax.train.build import build

_SIZES = {
  "model__hidden": 64,
  "model__num_layers": 3,
  "model__num_heads": 4,
  "model__num_kv_heads": 4,
  "model__mlp_width": 128,
  "model__max_length": 32,
  "data__seq_len": 32,
  "data__tokenizer": "bytes",
  "data__vocab_size": 264,
  "data__eval_batch_size": 32,
  "optim__warmup_steps": 0,
}
# Query, key, value and out; gate, up and down.
WEIGHTS = 3 * (4 * 64 * 64 + 3 * 64 * 128)


def exchanged(config):
  """Returns the exchanges of a train step."""
  experiment = build(config)
  with experiment.activate():
    arguments = experiment.step_arguments()
    lowered = experiment.train_step().lower(*arguments)
    return programs.collectives(lowered.compile().as_text())


def gathered(collectives, dtype):
  """Returns the bytes that are gathered in a dtype."""
  return sum(
    c.bytes_by_dtype().get(dtype, 0)
    for c in collectives
    if c.kind == "all-gather"
  )


@pytest.fixture
def make(make_config):
  def make(mesh, **changes):
    sizes = zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), mesh, strict=True)
    return make_config("pydoc_decoder", **_SIZES | dict(sizes) | changes)

  return make


@pytest.mark.slow
@pytest.mark.parametrize(
  ("mesh", "changes"),
  [
    ((1, 8, 1), {}),
    ((2, 2, 2), {}),
    ((1, 8, 1), {"model__remat": "full"}),
    ((1, 4, 1), {"optim__accumulate_steps": 2}),
    ((1, 8, 1), {"model__scan_layers": False}),
    ((1, 8, 1), {"quant__recipe": "b158_median"}),
  ],
  ids=str,
)
def test_ternary_weights_travel_in_two_bits(make, mesh, changes):
  found = exchanged(make(mesh, **changes))
  assert gathered(found, "u8") == WEIGHTS // 4 // mesh[2]
  kernels = {(64, 64), (64, 128), (128, 64)}
  for one in found:
    if one.kind == "all-gather":
      for dtype, shape in one.shapes:
        assert dtype not in ("f32", "s8") or shape[-2:] not in kernels


@pytest.mark.slow
def test_other_codes_travel_in_a_byte(make):
  found = exchanged(make((1, 8, 1), quant__recipe="int8"))
  assert gathered(found, "s8") == WEIGHTS
  assert gathered(found, "u8") == 0


@pytest.mark.slow
def test_float_weights_travel_as_they_are(make):
  found = exchanged(make((1, 8, 1), quant__recipe="float"))
  assert gathered(found, "f32") >= 4 * WEIGHTS
  assert gathered(found, "u8") == 0


@pytest.mark.slow
def test_nothing_is_packed_where_nothing_is_split(make):
  assert gathered(exchanged(make((8, 1, 1))), "u8") == 0


@pytest.mark.slow
def test_size_that_cannot_be_split_is_named(make):
  config = make((1, 1, 8), data__vocab_size=263)
  experiment = build(config)
  with experiment.activate(), pytest.raises(ValueError) as caught:
    experiment.init()
  message = str(caught.value)
  assert "has 263 along axis 0, which mesh.tensor = 8 does not" in message
  assert "256 or 264" in message


@pytest.mark.slow
def test_gradients_of_half_the_bytes_are_asked_for(make):
  def dtypes(**changes):
    experiment = build(make((1, 8, 1), **changes))
    with experiment.activate():
      arguments = experiment.step_arguments()
      return str(jax.make_jaxpr(experiment.train_step())(*arguments))

  assert "bf16" not in dtypes()
  assert "bf16[64,128]" in dtypes(optim__gradient_dtype="bfloat16")
  assert jnp.dtype("bfloat16").itemsize == 2
