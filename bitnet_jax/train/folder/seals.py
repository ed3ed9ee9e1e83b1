"""Seals of checkpoints: progress, metrics and the SHA-256 sum of each file.

``seal.json`` is written last, so that a checkpoint with a seal is complete.
orbax loads a checkpoint with a flipped byte without an error.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from bitnet_jax.construct import construct
from bitnet_jax.files import LARGEST_JSON, parse_json
from bitnet_jax.train.config.groups import CheckpointOptions
from bitnet_jax.train.folder import bucket

FORMAT = 1
SEAL = "seal.json"
STEP_NAME = re.compile(r"\d{6,}")
_READERS = 8  # Threads that read a checkpoint for its sums.


@dataclasses.dataclass(frozen=True)
class Progress:
  """The best value of the metric after some evaluations.

  Attributes:
    best: the value; ``None`` before any evaluation.
    best_step: its step.
    stale: number of evaluations since then.
  """

  best: float | None = None
  best_step: int = 0
  stale: int = 0

  def after(
    self, step: int, value: float, options: CheckpointOptions
  ) -> "Progress":
    """Returns the progress after one more evaluation."""
    if options.better(value, self.best):
      return Progress(value, step, 0)
    return dataclasses.replace(self, stale=self.stale + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Content:
  """The content of a seal."""

  format: int
  step: int
  progress: Progress
  metrics: dict[str, float]
  sha256: dict[str, str]


def steps(directory: epath.Path) -> list[int]:
  """Returns the steps with a sealed checkpoint in a folder, in order."""
  with bucket.naming_address(directory):
    if not directory.exists():
      return []
    return sorted(
      int(path.name)
      for path in directory.iterdir()
      if STEP_NAME.fullmatch(path.name) and (path / SEAL).is_file()
    )


def write(
  folder: epath.Path,
  *,
  step: int,
  progress: Progress,
  metrics: Mapping[str, float],
) -> None:
  """Seals a checkpoint; its other files are written already.

  Args:
    folder: folder of the checkpoint.
    step: its number.
    progress: progress of the run at that step.
    metrics: metrics of an evaluation at that step; may be empty.
  """
  content = dataclasses.asdict(
    _Content(
      format=FORMAT,
      step=step,
      progress=progress,
      metrics=dict(metrics),
      sha256=sums(folder),
    )
  )
  seal = {"content": content, "sha256": _digest(content)}
  bucket.write_text(folder / SEAL, json.dumps(seal, indent=1))


def find_damage(folder: epath.Path) -> str | None:
  """Returns what is wrong with a checkpoint, naming the file, or ``None``."""
  content = _read(folder)
  if content is None:
    return f"{folder / SEAL} is missing, cut short or changed"
  if content.get("format") != FORMAT:
    return f"{folder / SEAL} has format {content.get('format')}, not {FORMAT}"
  parsed = _parse(content)
  if parsed is None:
    return f"{folder / SEAL} has a value of another type than a seal has"
  recorded, found = parsed.sha256, sums(folder)
  for name in sorted(recorded.keys() | found.keys()):
    path = folder / name
    if name not in found:
      return f"{path} is missing"
    if name not in recorded:
      return f"{path} does not belong to it"
    if recorded[name] != found[name]:
      return f"{path} has changed since it was written"
  return None


def read_progress(folder: epath.Path) -> Progress:
  """Returns the progress stored with an undamaged checkpoint."""
  parsed = _parse(_read(folder))
  assert parsed is not None
  return parsed.progress


def read_metrics(folder: epath.Path) -> dict[str, float]:
  """Returns the metrics stored with a checkpoint; none if it is damaged."""
  parsed = _parse(_read(folder))
  return parsed.metrics if parsed else {}


def _read(folder: epath.Path) -> dict[str, Any] | None:
  """Returns the content of the seal; ``None`` if it cannot be trusted."""
  path = epath.Path(folder) / SEAL
  try:
    seal = parse_json(bucket.read_bounded(path, most=LARGEST_JSON))
    content, digest = seal["content"], seal["sha256"]
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return None
  is_ours = isinstance(content, dict) and digest == _digest(content)
  return content if is_ours else None


def _parse(content: dict[str, Any] | None) -> _Content | None:
  """Returns the content of a seal; ``None`` for a value of another type."""
  try:
    parsed = construct(_Content, content, group="seal")
  except ValueError:
    return None
  numbers, sums = parsed.metrics.values(), parsed.sha256.values()
  is_ours = all(type(number) in (int, float) for number in numbers)
  return parsed if is_ours and all(isinstance(s, str) for s in sums) else None


def _digest(content: Any) -> str:
  return hashlib.sha256(
    json.dumps(content, sort_keys=True).encode()
  ).hexdigest()


def sums(folder: epath.Path) -> dict[str, str]:
  """Returns the SHA-256 sum of every file but the seal, by relative path."""
  paths = [path for path in bucket.files(folder) if path != folder / SEAL]
  with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
    found = pool.map(_sum, paths)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return dict(zip(names, found, strict=True))


def _sum(path: epath.Path) -> str:
  file: Any = path.open("rb")
  with file:
    return hashlib.file_digest(file, "sha256").hexdigest()
