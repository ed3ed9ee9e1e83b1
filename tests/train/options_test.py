"""Each option of a config does what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder.metrics import read_metrics
from tests.train.conftest import (
  CONFIGS,
  SMALL,
  final_state,
  first_losses,
  lines_without_time,
)

# Sums of 32 losses in another order differ by a few ulps.
REORDERED = 1e-5


def losses(folder):
  return [line["train/loss"] for line in lines_without_time(folder)]


CHANGES = [
  {"seed": 1},
  {"data__random_crop": 1},
  {"data__random_flip": True},
  {"data__split_seed": 1},
  {"data__standardize": False},
  {"data__valid_fraction": 0.3},
  {"data__test_fraction": 0.4},
  {"data__batch_size": 16},
  {"model__dropout": 0.5},
  {"model__width": 8},
  {"model__depth": 2},
  {"model__dtype": "bfloat16"},
  {"model__param_dtype": "bfloat16"},
  {"quant__recipe": "b158_median"},
  {"quant__rules": ()},
  {"quant__norm": "rms_norm"},
  {"quant__norm": "none"},
  {"quant__bias_in_product": True},
  {"quant__ste": "clipped"},
  {"quant__weights__measure": "absmax"},
  {"quant__weights__range": (-2, 1)},
  {"quant__weights__scale": "channel"},
  {"quant__weights__eps": 0.5},
  {"quant__weights__rounding": "stochastic"},
  {"quant__acts__scale": "tensor"},
  {"quant__acts__range": (-7, 7)},
  {"quant__phase_in__steps": 4},
  {"optim__name": "adam"},
  {"optim__weight_decay": 5.0},
  {"optim__learning_rate": 1e-3},
  {"optim__schedule": "constant"},
  {"optim__schedule": "linear"},
  {"optim__schedule": "warmup_stable_decay"},
  {"optim__schedule": "two_stage", "optim__second_learning_rate": 1e-3},
  {"optim__warmup_steps": 3},
  {"optim__final_fraction": 0.5},
  {"optim__b1": 0.5},
  {"optim__b2": 0.5},
  {"optim__eps": 1e-2},
]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_option_changes_the_run(make_config, change, baseline):
  assert first_losses(make_config(**change)) != baseline


@pytest.fixture(scope="module")
def baseline():
  return first_losses(runner.load_config(str(CONFIGS / "digits_mlp.py"), SMALL))


def test_adam_has_no_weight_decay(make_config):
  options = {"optim__name": "adam"}
  assert first_losses(
    make_config(**options, optim__weight_decay=5.0)
  ) == first_losses(make_config(**options, optim__weight_decay=0.0))


def test_compute_changes_the_program_but_no_bit_of_the_loss(make_config):
  assert first_losses(make_config(quant__compute="int8")) == first_losses(
    make_config(quant__compute="float")
  )


@pytest.mark.slow
def test_clipping_bounds_the_update_not_the_reported_norm(run, make_config):
  # Gradients of 1e-9 are lost in an epsilon of 1e-3: nothing moves.
  still = {"optim__weight_decay": 0.0, "optim__eps": 1e-3}
  norms, moved = [], []
  for clip_norm in (None, 1e-9):
    options = {**still, "optim__clip_norm": clip_norm}
    _, folder = run(f"clip-{clip_norm}", **options)
    norms.append(lines_without_time(folder)[0]["train/grad_norm"])
    config = make_config(**options)
    experiment = build(config)
    with experiment.activate():
      start = experiment.init().params["head"]["kernel"]
    end = final_state(config, folder).params["head"]["kernel"]
    moved.append(np.abs(end - start).max())
  np.testing.assert_allclose(*norms, rtol=REORDERED)
  assert moved[0] > 1e-2
  assert moved[1] < 1e-6


def test_accumulation_gives_the_gradient_of_the_whole_batch(run):
  options = {"quant__recipe": "float", "model__dropout": 0.0}
  _, whole = run("whole", **options)
  _, parts = run("parts", optim__accumulate_steps=4, **options)
  for a, b in zip(
    lines_without_time(whole), lines_without_time(parts), strict=True
  ):
    np.testing.assert_allclose(
      [a["train/loss"], a["train/grad_norm"], a["train/accuracy"]],
      [b["train/loss"], b["train/grad_norm"], b["train/accuracy"]],
      rtol=1e-3,
    )


def test_accumulation_runs_smaller_batches(make_config):
  experiment = build(make_config(optim__accumulate_steps=4))
  with experiment.activate():
    state = experiment.init()
    batch = jax.tree.map(jnp.asarray, experiment.data.train_batch(0))
    jaxpr = str(
      jax.make_jaxpr(experiment.train_step())(
        state, batch, experiment.train_key()
      )
    )
  assert "i8[8,64]" in jaxpr
  assert "i8[32,64]" not in jaxpr


@pytest.mark.parametrize(
  "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_latent_weights_have_their_dtype_in_the_checkpoint(
  run, make_config, dtype
):
  _, folder = run(model__param_dtype=dtype)
  state = final_state(make_config(model__param_dtype=dtype), folder)
  assert state.params["layer_0"]["kernel"].dtype == jnp.dtype(dtype)


@pytest.mark.parametrize("recipe", ["float", "b158"])
def test_activations_have_the_dtype_of_the_model(make_config, recipe):
  config = make_config(model__dtype="bfloat16", quant__recipe=recipe)
  experiment = build(config)
  model = experiment.task.model
  x = jnp.zeros((2, 8, 8, 1))
  y, _ = model.init_with_output(jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16


def test_rules_choose_layers(run):
  _, folder = run(quant__rules=(("layer_0", "float"),), statistics_every=1)
  described = {
    k.split("/")[1] for k in lines_without_time(folder)[0] if "scale" in k
  }
  assert described == {"head"}


def test_phase_in_goes_from_float_to_the_integer_program(run, make_config):
  phase_in = {
    "quant__phase_in__steps": 4,
    "quant__phase_in__start": 2,
    "quant__phase_in__shape": "tanh",
  }
  options = {"quant__norm": "none", "model__dropout": 0.0}
  _, phased = run("phased", **phase_in, **options)
  _, floated = run("float", quant__recipe="float", model__dropout=0.0)
  settings = build(make_config(**phase_in)).settings
  schedule = settings.quant.phase_in.strength
  expected = [0, 0, 0, *np.tanh(2.5 * np.array([0.25, 0.5, 0.75]))]
  np.testing.assert_allclose([schedule(s) for s in range(6)], expected, 1e-6)
  assert schedule(6) is None
  # At strength 0 and without norm it is the float network.
  np.testing.assert_allclose(
    losses(phased)[:2], losses(floated)[:2], rtol=REORDERED
  )
  assert losses(phased)[4] != losses(floated)[4]


def test_cadences_decide_which_steps_are_written(run):
  _, folder = run(log_every=5, eval_every=6, statistics_every=4)
  steps = {
    kind: [
      line["step"]
      for line in read_metrics(folder)
      if any(key.startswith(kind) for key in line)
    ]
    for kind in ("train/", "valid/", "weights/")
  }
  assert steps == {"train/": [5, 10], "valid/": [6, 12], "weights/": [4, 8, 12]}


def test_checkpoints_are_kept_as_asked(run):
  _, folder = run(
    checkpoint_every=2, checkpoint__keep_last=3, checkpoint__keep_best=0
  )
  assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
    "000008",
    "000010",
    "000012",
  ]


@pytest.mark.slow
def test_worst_metric_is_kept_where_the_mode_says_so(run):
  _, folder = run(
    eval_every=2, checkpoint__metric="valid/loss", checkpoint__mode="max"
  )
  lines = {
    line["step"]: line["valid/loss"]
    for line in lines_without_time(folder)
    if "valid/loss" in line
  }
  worst = max(lines, key=lines.get)
  assert (folder / "checkpoints" / f"{worst:06d}").is_dir()


@pytest.mark.slow
def test_profile_is_written_on_request(run):
  _, without = run("without")
  assert not (without / "profile").exists()
  _, folder = run("with", profile__start=2, profile__steps=2)
  assert list((folder / "profile").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_evaluation_does_not_depend_on_its_batch_size(run):
  small, _ = run("small", data__eval_batch_size=7)
  large, _ = run("large", data__eval_batch_size=1000)
  for name, value in small["metrics"].items():
    np.testing.assert_allclose(
      value, large["metrics"][name], rtol=REORDERED, err_msg=name
    )
