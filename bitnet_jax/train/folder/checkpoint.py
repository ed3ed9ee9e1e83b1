"""Checkpoints written by orbax and sealed with SHA-256 sums.

``checkpoints/000200/`` holds the files of orbax (``state/``) and ``seal.json``,
written last, with progress, metrics and the sum of every file. A folder without
a seal, or with a file that does not match it, is never loaded: it is renamed,
with a warning that names the file.
"""

import concurrent.futures
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from orbax.checkpoint import v1 as ocp

from bitnet_jax import choices
from bitnet_jax.train.config.groups import CheckpointOptions
from bitnet_jax.train.devices import multihost
from bitnet_jax.train.folder import bucket, seals
from bitnet_jax.train.folder.seals import Progress
from bitnet_jax.train.optimizer.averaging import find_average, replace_average
from bitnet_jax.train.state import TrainState


class Checkpoints:
  """The checkpoints of one run.

  Attributes:
    directory: absolute, or an address in a bucket.
    options: which checkpoints are kept.
    counted_from: first step whose evaluation counts for "best".
    check: called before and after each save, in the primary process; raises an
      error if the folder of the run is gone.
  """

  def __init__(
    self,
    directory: epath.PathLike,
    options: CheckpointOptions,
    *,
    counted_from: int = 0,
  ):
    self.directory = epath.Path(directory)
    if not bucket.is_in_bucket(self.directory):  # epath resolves paths alone.
      self.directory = self.directory.resolve()
    self.options, self.counted_from = options, counted_from
    self.check: Callable[[], None] = lambda: None
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._finishing: concurrent.futures.Future[None] | None = None

  @classmethod
  def of_run(
    cls,
    folder: pathlib.Path,
    options: CheckpointOptions,
    *,
    counted_from: int = 0,
  ) -> "Checkpoints":
    """Returns the checkpoints of a workdir, which may be in a bucket."""
    place = bucket.checkpoint_folder(folder)
    return cls(place, options, counted_from=counted_from)

  def steps(self) -> list[int]:
    """Returns the steps with a sealed checkpoint, in order."""
    return seals.steps(self.directory)

  def best_step(self) -> int | None:
    """Returns the step of the best checkpoint that is kept, if any."""
    return next(iter(self._ranked()), None)

  def save(
    self,
    step: int,
    state: TrainState,
    *,
    progress: Progress,
    metrics: Mapping[str, float],
  ) -> None:
    """Writes a checkpoint, then removes those that are no longer kept.

    Returns once the state is copied off the devices. The rest happens in
    another thread, until the next save or ``wait``.

    Args:
      step: its number.
      state: the arrays.
      progress: restored along with them.
      metrics: metrics of an evaluation at this step; may be empty.
    """
    self.wait()
    multihost.on_primary(lambda: self._remove_failed(step))
    tree: Any = state
    # Processes synchronize their saves by transfers to their devices.
    with jax.transfer_guard_host_to_device("allow"):
      response = ocp.save_async(str(self._folder(step) / "state"), tree)

    def finish():
      with bucket.naming_address(self.directory):
        response.result()
        if multihost.is_primary():
          self._seal(step, progress, metrics)

    # A thread, since the sums take as long as reading the checkpoint.
    self._finishing = self._thread.submit(finish)

  def _remove_failed(self, step: int) -> None:
    """Removes the files of a failed save of the same step."""
    self.check()
    folder = self._folder(step)
    with bucket.naming_address(self.directory):
      if folder.is_dir() and not (folder / seals.SEAL).is_file():
        folder.rmtree()

  def wait(self) -> None:
    """Waits until the last save is complete, and raises its error."""
    if self._finishing is not None:
      finishing, self._finishing = self._finishing, None
      finishing.result()

  def close(self) -> None:
    """Waits for the last save; see ``wait``."""
    self.wait()

  def _seal(
    self, step: int, progress: Progress, metrics: Mapping[str, float]
  ) -> None:
    folder = self._folder(step)
    seals.write(folder, step=step, progress=progress, metrics=metrics)
    self.check()
    steps = self.steps()
    kept = {*steps[-self.options.keep_last :]}
    kept |= {*self._ranked()[: self.options.keep_best]}
    for old in set(steps) - kept:
      # Renamed first: a half-removed one must not look like a checkpoint.
      removed = self._folder(old).with_name(f"removing-{old:06d}")
      self._folder(old).rename(removed)
      removed.rmtree()

  def restore_latest(
    self, state: TrainState
  ) -> tuple[TrainState, Progress] | None:
    """Loads the newest undamaged checkpoint, and renames damaged ones.

    Args:
      state: gives the structure, shapes, dtypes and shardings.

    Returns:
      State and progress; ``None`` if there is no checkpoint.
    """
    with bucket.naming_address(self.directory):
      step = multihost.on_primary(self._find_latest)
    if step is None:
      return None
    state = self._load(step, state)
    with bucket.naming_address(self.directory):
      progress = seals.read_progress(self._folder(step))
    # Earlier versions counted evaluations from the first step on.
    if progress.best_step < self.counted_from:
      progress = Progress()
    return state, progress

  def restore_best(self, state: TrainState) -> tuple[int, TrainState] | None:
    """Loads the best undamaged checkpoint, and warns of damaged ones.

    Args:
      state: see ``restore_latest``; shapes, dtypes and shardings are enough.

    Returns:
      Step and state; ``None`` if no checkpoint has the metric.
    """
    with bucket.naming_address(self.directory):
      step = multihost.on_primary(self._find_best)
    return None if step is None else (step, self._load(step, state))

  def _find_best(self) -> int | None:
    """Returns the best undamaged step."""
    for step in self._ranked():
      damage = seals.find_damage(self._folder(step))
      if damage is None:
        return step
      logging.warning("checkpoint %d is passed over: %s", step, damage)
    return None

  def _find_latest(self) -> int | None:
    """Returns the newest undamaged step."""
    self._clean_up()
    for step in reversed(self.steps()):
      damage = seals.find_damage(self._folder(step))
      if damage is None:
        return step
      _set_aside(self._folder(step), damage)
    return None

  def restore(self, step: int, state: TrainState) -> TrainState:
    """Loads one checkpoint.

    Raises:
      ValueError: if there is none of that step, or if it is damaged, naming
        the file.
    """
    self._check_undamaged(step)
    return self._load(step, state)

  def restore_variables(
    self, step: int, abstract: Mapping[str, Any] | None = None
  ) -> dict[str, Any]:
    """Loads only the variables of the model of one checkpoint.

    Args:
      step: its number.
      abstract: shapes, dtypes and shardings of the variables, by collection.
        ``None`` gives NumPy arrays: the devices of that run may not be there.

    Returns:
      Parameters and mutable collections, by collection: ``{"params": ...,
      "batch_stats": ...}``. The parameters are the averages of ``optim.ema``,
      if the run has them.

    Raises:
      ValueError: if there is none of that step, if it is damaged, naming the
        file, or if it holds variables of other shapes, naming one.
    """
    self._check_undamaged(step)
    path = str(self._folder(step) / "state")
    with bucket.naming_address(self.directory):
      saved: Any = ocp.metadata(path).metadata
      found = {"params": saved["params"], **saved["variables"]}
      if abstract is None:
        abstract = jax.tree.map(
          lambda leaf: np.empty(leaf.shape, leaf.dtype), found
        )
      else:
        _check_shapes(path, found, abstract)
      wanted = jax.tree.map(lambda leaf: ocp.PLACEHOLDER, saved)
      averaged = find_average(saved["opt_state"]) is not None
      if averaged:
        wanted["opt_state"] = replace_average(
          wanted["opt_state"], abstract["params"]
        )
      else:
        wanted["params"] = abstract["params"]
      wanted["variables"] = {k: abstract[k] for k in saved["variables"]}
      loaded: Any = ocp.load(path, wanted)
    params = find_average(loaded["opt_state"]) if averaged else loaded["params"]
    return {"params": params, **loaded["variables"]}

  def _check_undamaged(self, step):
    """Raises a ValueError for a step without an undamaged checkpoint."""
    choices.check(step, self.steps(), key="checkpoint")
    with bucket.naming_address(self.directory):
      damage = seals.find_damage(self._folder(step))
    if damage is not None:
      raise ValueError(f"the checkpoint is damaged: {damage}")

  def _load(self, step: int, state: TrainState) -> TrainState:
    abstract: Any = jax.tree.map(_abstract, state)
    with bucket.naming_address(self.directory):
      loaded: Any = ocp.load(str(self._folder(step) / "state"), abstract)
    return loaded

  def _folder(self, step: int) -> epath.Path:
    return self.directory / f"{step:06d}"

  def _ranked(self) -> list[int]:
    """Steps whose metric counts, best first; the earlier where they tie."""
    values = {}
    for step in self.steps():
      if step < self.counted_from:
        continue
      metrics = seals.read_metrics(self._folder(step))
      value = metrics.get(self.options.metric)
      if value is not None:
        values[step] = value
    sign = -1 if self.options.mode == "max" else 1
    return sorted(values, key=lambda step: (sign * values[step], step))

  def _clean_up(self) -> None:
    """Removes the files of a killed save or removal, with a warning."""
    if not self.directory.exists():
      return
    for path in sorted(self.directory.glob("removing-*")):
      step = path.name.removeprefix("removing-")
      if seals.STEP_NAME.fullmatch(step):
        # In a bucket files are renamed one by one.
        self._folder(int(step)).rmtree(missing_ok=True)
        path.rmtree()
    for path in sorted(self.directory.iterdir()):
      if not path.is_dir():
        continue
      seal = path / seals.SEAL
      if not seals.STEP_NAME.fullmatch(path.name) or seal.is_file():
        continue
      if _is_saved(path / "state"):
        _set_aside(path, f"{seal} is missing, as if it was cut short")
      else:
        logging.warning("%s was cut short while it was saved; removed", path)
        path.rmtree()


def _check_shapes(path: str, found: Any, expected: Any) -> None:
  """Raises a ValueError for variables that do not fit the model."""
  there, here = (
    {
      jax.tree_util.keystr(path, simple=True, separator="/"): leaf
      for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    for tree in (found, expected)
  )
  for name in sorted({*there, *here}):
    shapes = [
      tuple(tree[name].shape) if name in tree else None
      for tree in (there, here)
    ]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f"{path} does not fit the model: {name} has the shape {shapes[0]}"
        f" there, {shapes[1]} in the model"
      )


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _is_saved(state: epath.Path) -> bool:
  """Whether orbax has finished writing.

  Only then does it rename its folder, or add a file to it in a bucket.
  """
  if bucket.is_in_bucket(state):
    return (state / "commit_success.txt").exists()
  return state.is_dir()


def _set_aside(folder: epath.Path, damage: str) -> None:
  """Renames a damaged checkpoint, rather than remove it."""
  n = 0
  while (aside := folder.with_name(f"damaged-{folder.name}-{n}")).exists():
    n += 1
  folder.rename(aside)
  logging.warning(
    "checkpoint %s is not used: %s; it is now %s", folder.name, damage, aside
  )
