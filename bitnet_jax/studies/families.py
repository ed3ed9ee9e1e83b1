"""Three small networks that studies of methods share: MLP, CNN and decoder."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from bitnet_jax import choices
from bitnet_jax.analysis import pairs, verdicts
from bitnet_jax.studies import comparisons, summaries
from bitnet_jax.studies.case import Case
from bitnet_jax.studies.findings import Column, Figure, Table
from bitnet_jax.studies.runs import Runs

_QUIET = {"checkpoint.keep_best": 0, "checkpoint_every": 100_000}
_SHORT = {
  "total_steps": 4,
  "eval_every": 4,
  "statistics_every": 0,
  "steps_per_dispatch": 1,
  **_QUIET,
}
_MNIST = {
  **_QUIET,
  "data.source": "file:{data}/mnist/mnist.npz",
  "eval_every": 223,
  "model.dropout": 0.0,
}
# By scale and name: a config, and what differs from it.
_NETWORKS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
  "ci": {
    "mlp": ("digits_mlp.py", {**_SHORT, "model.width": 8, "model.depth": 1}),
    "cnn": (
      "digits_cnn.py",
      {**_SHORT, "model.channels": (2,), "model.dense_width": 4},
    ),
    "decoder": (
      "pydoc_decoder.py",
      {
        **_SHORT,
        "optim.warmup_steps": 1,
        "data.tokenizer": "bytes",
        "data.vocab_size": None,
        "data.valid_fraction": 0.01,
        "data.test_fraction": 0.01,
        "data.batch_size": 4,
        "data.seq_len": 16,
        "model.hidden": 8,
        "model.num_layers": 1,
        "model.scan_layers": False,
        "model.num_heads": 1,
        "model.num_kv_heads": 1,
        "model.mlp_width": 8,
        "model.max_length": 16,
      },
    ),
  },
  "cpu": {
    "mlp": (
      "mnist_mlp.py",
      {**_MNIST, "total_epochs": 2, "model.width": 64},
    ),
    "cnn": (
      "mnist_cnn.py",
      {
        **_MNIST,
        "total_epochs": 1,
        "data.train_examples": 30_000,
        "eval_every": 117,
        "model.channels": (4, 8),
        "model.dense_width": 32,
      },
    ),
    "decoder": (
      "pydoc_decoder.py",
      {
        **_QUIET,
        "total_steps": 400,
        "eval_every": 100,
        "data.source": "file:{data}/tinyshakespeare/input.txt.gz",
        "data.tokenizer": "bytes",
        "data.vocab_size": None,
        "data.valid_fraction": 0.05,
        "data.test_fraction": 0.05,
        "data.batch_size": 8,
        "data.seq_len": 64,
        "data.eval_batch_size": 64,
        "model.hidden": 48,
        "model.num_layers": 2,
        "model.num_heads": 2,
        "model.num_kv_heads": 2,
        "model.mlp_width": 128,
        "model.max_length": 64,
      },
    ),
  },
  "paper": {
    "mlp": ("mnist_mlp.py", {"data.source": "file:{data}/mnist/mnist.npz"}),
    "cnn": (
      "cifar10_cnn.py",
      {"data.source": "file:{data}/cifar10_subset/cifar10_subset.npz"},
    ),
    "decoder": (
      "reloaded_decoder.py",
      {
        "data.source": "file:{data}/books/{split}.txt.xz",
        "data.tokenizer": "bpe",
        "data.test_fraction": 0.05,
      },
    ),
  },
}
# Differences that do not matter: a seventh of the errors of such an MLP, and a
# hundredth of the loss of such a decoder.
MARGINS = {"points": 0.3, "nats": 0.02}
# By scale; pilots used the seeds from 0 on.
SEEDS = {"ci": range(2), "cpu": range(100, 110), "paper": range(5)}
_BYTES, _CLASSES = 256, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
  """A network with its data, and how its runs are compared.

  Attributes:
    name: "mlp", "cnn" or "decoder".
    config: a config file.
    overrides: what differs from it, by dotted key.
  """

  name: str
  config: str
  overrides: Mapping[str, Any]

  @property
  def reads_text(self) -> bool:
    """Whether the loss counts, not the accuracy."""
    return self.name == "decoder"

  @property
  def unit(self) -> str:
    """The unit of ``values``."""
    return "nats" if self.reads_text else "points"

  @property
  def better(self) -> str:
    """Which ``values`` are better."""
    return "lower" if self.reads_text else "higher"

  def case(
    self,
    cell: Mapping[str, Any],
    seed: int,
    overrides: Mapping[str, Any],
    after: Mapping[str, str] | None = None,
  ) -> Case:
    """Returns a case of this family, which is part of its cell."""
    return Case(
      self.config,
      {"family": self.name, **cell},
      seed,
      {**self.overrides, **overrides},
      after or {},
    )

  def values(self, runs: Runs, split: str = "test") -> dict[int, float]:
    """Returns what counts of the runs of one cell, by seed.

    It is the loss in nats a token, or the accuracy in percent. A diverged run
    counts as uniform predictions over bytes or ten classes.
    """
    if self.reads_text:
      return runs.by_seed(f"{split}/loss", diverged=math.log(_BYTES))
    found = runs.by_seed(f"{split}/accuracy", diverged=1 / _CLASSES)
    return {seed: 100 * value for seed, value in found.items()}

  def pair(self, first: Runs, second: Runs) -> pairs.Pairs:
    """Returns the runs of two cells, paired by seed; see ``values``."""
    a, b = self.values(first), self.values(second)
    return pairs.pair(a, b, diverged="exclude")

  def at_best(self, runs: Runs, key: str = "rate") -> Runs:
    """Returns the runs at the value of a key that is best in validation."""
    if self.reads_text:
      best = runs.best(key, "valid/loss", mode="min")
    else:
      best = runs.best(key, "valid/accuracy")
    return runs.where(**{key: best})


@functools.cache
def families(scale: str, data: str = "") -> dict[str, Family]:
  """Returns the families by name.

  Args:
    scale: "ci", "cpu" or "paper".
    data: folder of data sets.
  """
  networks = choices.pick(_NETWORKS, scale, key="scale")
  return {
    name: Family(
      name=name,
      config=f"configs/{config}",
      overrides={
        key: value.replace("{data}", data) if key == "data.source" else value
        for key, value in overrides.items()
      },
    )
    for name, (config, overrides) in networks.items()
  }


def judge(
  rule: str, cells: comparisons.Cells, statement: str, scale: str, **about: Any
) -> list[verdicts.Verdict]:
  """Returns one verdict on images and one on text, where there are cells.

  All cells must hold. Accuracies and losses have margins of their own.

  Args:
    rule: "better" or "no worse".
    cells: pairs by cell: "family=mlp, precision=binary".
    statement: what the claim says, without the kind of data.
    scale: of the runs.
    **about: further arguments of ``verdict``: "claim" and "comparisons".
  """
  return [
    verdicts.verdict(
      rule,
      those,
      statement=f"{statement} ({kind})",
      scale=scale,
      unit=family.unit,
      margin=MARGINS[family.unit],
      better=family.better,
      combine="all",
      **about,
    )
    for kind, family, those in _kinds(cells, scale)
  ]


def figures(title: str, cells: comparisons.Cells, scale: str) -> list[Figure]:
  """Returns bars of differences, on images and on text; see ``judge``."""
  found = []
  for kind, family, those in _kinds(cells, scale):
    label = f"difference ({family.unit}; {family.better} is better)"
    bars = {kind: those}
    found.append(comparisons.figure(kind, f"{title} ({kind})", bars, label))
  return found


def _kinds(cells, scale):
  """Yields the name of a kind of data, a family that has it, and its cells."""
  known = families(scale)
  for kind, is_text in (("images", False), ("text", True)):
    those = {
      name: pair
      for name, pair in cells.items()
      if ("family=decoder" in name) == is_text
    }
    if those:
      yield kind, known["decoder" if is_text else "mlp"], those


def at_best_rates(runs: Runs, key: str) -> dict[tuple[str, Any], Runs]:
  """Returns runs at the rate that is best in validation.

  Args:
    runs: with "family", "rate" and ``key`` in their cells.
    key: the other key of the cells.

  Returns:
    Runs by family and value of ``key``.
  """
  known = families(runs.scale)
  groups = runs.group("family", key).items()
  return {(name, value): known[name].at_best(r) for (name, value), r in groups}


def table(title: str, key: str, best: Mapping[tuple[str, Any], Runs]) -> Table:
  """Returns the means of cells.

  Args:
    title: for readers.
    key: of the cells, beside "family".
    best: see ``at_best_rates``.
  """
  rows = []
  for (name, value), runs in best.items():
    mean = summaries.mean(families(runs.scale)[name].values(runs))
    diverged = sum(run.diverged for run in runs)
    row = [name, value, *runs.choices("rate"), *mean, len(runs), diverged]
    rows.append(row)
  columns = [
    Column("family"),
    Column(key),
    Column("rate"),
    Column("mean", "accuracy (%) or loss (nats)", digits=3),
    Column("low", "from", digits=3),
    Column("high", "to (95 %)", digits=3),
    Column("runs"),
    Column("diverged"),
  ]
  return Table(f"{key}s", title, columns, rows)
