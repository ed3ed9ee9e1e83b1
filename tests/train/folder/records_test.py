"""What identifies a run, and the files of records."""

import copy
import hashlib
import json
import pathlib
import re

import pytest

from bitnet_jax.config import completed
from bitnet_jax.train.build import build
from bitnet_jax.train.config import flags
from bitnet_jax.train.folder import records

CONFIG = {
  "task": {"name": "masked_lm"},
  "model": {"name": "encoder"},
  "seed": 0,
  "total_steps": 10,
  "log_every": 5,
  "eval_every": None,
  "checkpoint_every": 5,
  "statistics_every": 5,
  "mesh": {"data": 1},
  "sharding_rules": (("batch", "data"),),
  "profile": {"start": None},
  "data": {"source": "file:a.npz", "data_dir": None, "batch_size": 8},
  "optim": {"b1": 0.9},
}


def changed(key, value):
  config = copy.deepcopy(CONFIG)
  *parents, last = key.split(".")
  group = config
  for name in parents:
    group = group[name]
  group[last] = value
  return config


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("log_every", 1),
    ("eval_every", 1),
    ("checkpoint_every", 1),
    ("statistics_every", None),
    ("mesh.data", 8),
    ("sharding_rules", ()),
    ("profile.start", 3),
    ("data.source", "file:b.npz"),
    ("data.data_dir", "there"),
  ],
)
def test_what_is_free_does_not_change_the_id(key, value):
  expected = records.run_id(CONFIG, "f")
  assert records.run_id(changed(key, value), "f") == expected


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("seed", 1),
    ("total_steps", 11),
    ("data.batch_size", 16),
    ("optim.b1", 0.8),
    ("optim.new", 1),
  ],
)
def test_everything_else_changes_the_id(key, value):
  expected = records.run_id(CONFIG, "f")
  assert records.run_id(changed(key, value), "f") != expected


def test_cadence_changes_the_id_where_it_decides_what_is_learned():
  def ids(key, values, **config):
    named = [CONFIG | config | {key: value} for value in values]
    return len({records.run_id(config, "f") for config in named})

  for patience, different in ((None, 1), (3, 2)):
    stopping = {"early_stopping": {"patience": patience}}
    assert ids("eval_every", (5, 10), **stopping) == different
    assert ids("checkpoint_every", (5, 10), **stopping) == 1
  for key in ("eval_every", "checkpoint_every"):
    for task, at_once, values, different in (
      ("documents", 4, (4, 16, 8), 1),  # A dispatch ends there anyway.
      ("documents", 4, (4, 6, 10), 3),
      ("documents", 1, (4, 6, 10), 1),
      ("classification", 4, (4, 6, 10), 1),
    ):
      config = {"task": {"name": task}, "steps_per_dispatch": at_once}
      other = {"eval_every": 0, "checkpoint_every": 8}
      assert ids(key, values, **(other | config)) == different, (key, config)


def test_keys_that_came_later_change_the_id_only_if_they_are_used():
  expected = records.run_id(CONFIG | {"quant": {"phase_in": {"start": 1}}}, "f")

  def id_of(teacher, optimizer, weight=0.5):
    phase_in = {"start": 1, "optimizer": optimizer}
    distill = {"teacher": teacher, "weight": weight}
    later = {"quant": {"phase_in": phase_in}, "distill": distill}
    return records.run_id(CONFIG | later, "f")

  assert id_of(None, "keep") == id_of(None, "keep", 0.9) == expected
  others = {id_of(None, "reset"), id_of("a", "keep"), id_of("a", "keep", 0.9)}
  assert len(others | {expected}) == 4
  for group, key, before, used in (
    ("task", "predictions", None, 9),
    ("model", "pooling", "first", "mean"),
  ):
    named = [
      records.run_id(CONFIG | {group: CONFIG[group] | later}, "f")
      for later in ({}, {key: before}, {key: used})
    ]
    assert named[0] == named[1] != named[2]
  # The teacher itself is in the fingerprint, by content.
  assert id_of("a", "keep") == id_of("b", "keep")


CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
EXPERIMENTS = pathlib.Path(__file__).parents[3] / "experiments"
IDENTITIES = pathlib.Path(__file__).parents[2] / "testdata" / "identities.json"


@pytest.mark.parametrize(
  ("name", "expected"), json.loads(IDENTITIES.read_text()).items()
)
def test_identities_of_records_are_those_of_the_golden_file(name, expected):
  """Without the data, which names a run too. No change may rewrite the file."""
  found = records.load(EXPERIMENTS / name)[: expected["records"]]
  digest = hashlib.sha256()
  for record in found:
    identity = records.identity(record["config"], "")
    digest.update(json.dumps(identity, sort_keys=True).encode())
  assert digest.hexdigest()[:16] == expected["identities"]


def test_older_configs_are_read_with_the_defaults_of_later_keys():
  config = flags.load_config(str(CONFIGS / "pydoc_encoder.py"))
  older = copy.deepcopy(config)
  del older["distill"], older["quant"]["phase_in"]["optimizer"]
  del older["task"]["predictions"], older["model"]["pooling"]
  assert completed(older) == config
  assert records.run_id(older, "f") == records.run_id(config, "f")


def test_records_keep_their_names():
  """Those of runs on data that every machine has."""
  folder = pathlib.Path(__file__).parents[3] / "experiments"
  found = [r for p in folder.glob("*/results.jsonl") for r in records.load(p)]
  for record in found:
    cadences = {"eval_every", "checkpoint_every"}
    assert not cadences & records.identity(record["config"], "f").keys()
  digits = next(
    record
    for record in found
    if record["config"]["data"]["source"] == "embedded:digits"
    and record["config"]["model"]["name"] == "mlp"
  )
  config = completed(digits["config"])
  assert build(config).run_id == digits["run_id"]


def test_data_change_the_id():
  assert records.run_id(CONFIG, "f") != records.run_id(CONFIG, "g")


def test_id_is_that_of_the_config_that_was_written():
  written = json.loads(json.dumps(CONFIG))
  assert records.run_id(written, "f") == records.run_id(CONFIG, "f")
  reordered = dict(reversed(CONFIG.items()))
  assert records.run_id(reordered, "f") == records.run_id(CONFIG, "f")
  assert re.fullmatch("[0-9a-f]{12}", records.run_id(CONFIG, "f"))


def test_identity_leaves_the_config_as_it_was():
  before = copy.deepcopy(CONFIG)
  identity = records.identity(CONFIG, "f")
  assert before == CONFIG
  assert identity["data"] == {"batch_size": 8, "fingerprint": "f"}


def test_differences_name_keys_and_both_values():
  old = {"a": 1, "group": {"b": 2, "c": "x", "gone": 0}, "same": [1]}
  new = {"a": 1, "group": {"b": 3, "c": "y", "new": 0}, "same": [1]}
  assert records.differences(old, new) == [
    "group.b: 2 there, 3 now",
    "group.c: 'x' there, 'y' now",
    "group.gone is gone",
    "group.new is new",
  ]
  assert records.differences(old, old) == []


def test_records_are_appended_and_loaded(tmp_path):
  path = tmp_path / "results.jsonl"
  assert records.load(path) == []
  rows = [{"a": 1, "b": {"c": "é"}}, {"a": 2}]
  for row in rows:
    records.append(path, row)
  assert records.load(path) == rows
  assert len(path.read_text().splitlines()) == 2


def test_records_are_grouped_by_keys_of_their_config():
  rows = [
    {"config": {"seed": seed, "quant": {"recipe": recipe}}}
    for recipe in ("float", "b158")
    for seed in (0, 1)
  ]
  groups = records.group(rows, "quant.recipe")
  assert groups == {("float",): rows[:2], ("b158",): rows[2:]}
  assert len(records.group(rows, "seed", "quant.recipe")) == 4


def test_versions_name_python_and_packages():
  versions = records.versions()
  assert set(versions) == {"python", *records.PACKAGES}
  assert re.match(r"3\.\d+", versions["python"])
  assert re.match(r"\d+\.\d+", versions["jax"])


def test_package_that_is_not_installed_has_no_version(monkeypatch):
  monkeypatch.setattr(records, "PACKAGES", ("not-a-package",))
  assert records.versions()["not-a-package"] is None


def test_commit_is_that_of_the_checkout_or_none(monkeypatch):
  assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", records.commit() or "0" * 40)
  monkeypatch.setenv("PATH", "")
  assert records.commit() is None


def test_device_says_number_and_kind():
  assert records.device() == "8 x cpu"
