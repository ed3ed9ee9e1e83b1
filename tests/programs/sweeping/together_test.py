"""Cases of studies: blocks, outcomes, failures, worker processes."""

import dataclasses

import numpy as np
import pytest

from bitnet_jax.programs.sweeping import blocks, together
from bitnet_jax.programs.sweeping.together import Case
from bitnet_jax.train.folder import workdir
from bitnet_jax.train.sweep import shared, sharing

XOR = {
  "total_epochs": None,
  "total_steps": 20,
  "steps_per_dispatch": 10,
  "eval_every": 10,
  "log_every": 5,
  "statistics_every": 0,
}


@pytest.fixture
def case(make_config):
  """Returns ``case(name, **overrides)`` of the xor network."""

  def make(name, folder=None, **overrides):
    config = make_config("xor_mlp", **(XOR | overrides))
    return Case(name=name, config=config, folder=folder)

  return make


def test_cases_that_differ_in_numbers_share_blocks(case):
  cases = [
    case("a", seed=1),
    case("wider", model__width=16),
    case("b", seed=2, optim__learning_rate=0.5),
    case("stops early", early_stopping__patience=2),
    case("c", optim__weight_decay=0.2),
    case("no decay", optim__weight_decay=0.0),
  ]
  found = blocks.plan(cases)
  names = [[c.name for c in block.cases] for block in found]
  assert names == [["a", "b", "c"], ["wider"], ["stops early"], ["no decay"]]
  assert [block.key is None for block in found] == [False, False, True, False]
  alone = blocks.plan(cases, program="each")
  assert [len(block.cases) for block in alone] == [1] * len(cases)
  with pytest.raises(ValueError, match="program is 'one', which is not one of"):
    blocks.plan(cases, program="one")


def test_blocks_are_shared_evenly_by_workers():
  assert [len(p) for p in sharing.split(range(33), 8, 1)] == [7, 7, 7, 7, 5]
  assert [len(p) for p in sharing.split(range(10), 32, 2)] == [5, 5]
  assert [len(p) for p in sharing.split(range(1), 32, 2)] == [1]


def test_block_is_the_same_as_json(case):
  (block,) = blocks.plan([case("a"), case("b", seed=3)])
  assert blocks.Block.parse(dataclasses.asdict(block)) == block


def test_diverged_member_does_not_stop_the_others(case):
  cases = [
    case("good", optim__learning_rate=0.01),
    case("bad", optim__learning_rate=1e38),
  ]
  ended = []
  good, bad = together.train(cases, on_end=lambda o: ended.append(o.name))
  assert ended == ["good", "bad"]
  assert good.error is None
  assert good.diverged is None
  assert good.result["step"] == 20
  assert np.isfinite(good.variables["params"]["head"]["kernel"]).all()
  assert good.layers["head"].keys() == {
    "zeros",
    "negative",
    "positive",
    "scale",
  }
  assert bad.result is None
  assert bad.run_id != good.run_id
  assert bad.diverged > 0
  assert bad.error.endswith(
    f"at step {bad.diverged}; the run stops here, and the checkpoints before"
    " this step are kept. A lower optim.learning_rate or optim.clip_norm may"
    " help"
  )
  assert all(line["step"] < bad.diverged for line in bad.curves)


def test_number_out_of_range_fails_its_member_alone(case):
  good, bad = together.train(
    [case("good"), case("bad", optim__learning_rate=-1.0)]
  )
  assert good.error is None
  assert bad.error == "optim.learning_rate is -1.0; it must be >= 0"


def test_missing_start_fails_its_cases_alone(case, tmp_path):
  missing = f"{tmp_path / 'missing'}"
  good, bad = together.train([case("good"), case("bad", init_from=missing)])
  assert good.error is None
  assert bad.error.startswith(f"init_from is {missing}")


@pytest.mark.slow
def test_start_that_does_not_fit_fails_its_case_alone(case, tmp_path):
  folders = {w: f"{tmp_path / str(w)}" for w in (8, 16)}
  together.train(
    [case(f"{w}", folder=f, model__width=w) for w, f in folders.items()]
  )
  own = {"model__width": 8}
  found = together.train(
    [case(f"from {w}", init_from=f, **own) for w, f in folders.items()]
  )
  assert found[0].error is None
  assert f"init_from is {folders[16]}, where " in found[1].error
  for w in (8, 16):
    name, start = "distill__teacher", folders[w]
    taught = case("taught", **{name: start, **own})
    assert together.train([taught])[0].error is None


@pytest.mark.slow
def test_case_by_itself_has_the_same_outcome(case):
  (shared,) = together.train([case("a")])
  (alone,) = together.train([case("a")], program="each")
  assert shared.run_id == alone.run_id
  assert shared.config == alone.config
  assert shared.layers == alone.layers
  for key in ("metrics", "best"):
    assert shared.result[key] == alone.result[key]
  assert [line["step"] for line in shared.curves] == [
    line["step"] for line in alone.curves
  ]
  np.testing.assert_array_equal(
    shared.variables["params"]["head"]["kernel"],
    alone.variables["params"]["head"]["kernel"],
  )


@pytest.mark.slow
def test_cases_with_folders_share_data_and_leave_runs(
  case, tmp_path, monkeypatch
):
  built = []

  def build(*args):
    built.append(args)
    return build_alone(*args)

  build_alone = shared.build
  monkeypatch.setattr(shared, "build", build)
  first, second = together.train(
    [
      case("a", folder=f"{tmp_path / 'a'}"),
      case("b", folder=f"{tmp_path / 'b'}", seed=3),
    ]
  )
  assert len(built) == 1
  for found in (first, second):
    assert found.error is None
    assert workdir.read_result(tmp_path / found.name) == found.result
    path = tmp_path / found.name / "checkpoints" / "000020" / "seal.json"
    assert path.exists()
  (alone,) = together.train([case("b", seed=3)])
  assert alone.run_id == second.run_id
  assert alone.result["metrics"] == second.result["metrics"]
  assert alone.layers == second.layers


@pytest.mark.slow
def test_workers_train_the_same(case):
  cases = [
    *(case(f"{seed}", seed=seed) for seed in range(3)),
    case("bad", optim__learning_rate=1e38),
    case("alone", early_stopping__patience=9),
  ]
  steps = {}
  found = together.train(cases, workers=2, on_step=steps.__setitem__)
  assert [outcome.name for outcome in found] == [case.name for case in cases]
  assert found[3].diverged > 0
  assert steps.keys() == {"0", "1", "2", "alone"}
  expected = together.train(cases)
  for outcome, other in zip(found, expected, strict=True):
    assert outcome.error == other.error
    if outcome.result is not None:
      assert outcome.result["metrics"] == pytest.approx(
        other.result["metrics"], abs=1e-5
      )
