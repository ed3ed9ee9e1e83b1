"""The walk-throughs of docs/own-models.md, as they stand there."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "own-models.md"
_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def program_of(section):
  """Returns the blocks of a section, after those that both sections need."""
  text = PAGE.read_text(encoding="utf-8")
  start, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
  (found,) = [s for s in sections if s.startswith(f"{section}\n")]
  return "\n\n".join(_BLOCK.findall(start) + _BLOCK.findall(found))


def test_loop_has_at_most_forty_lines():
  blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
  (loop,) = [block for block in blocks if "@nnx.jit" in block]
  assert len(loop.splitlines()) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("section", ["NNX", "Linen"])
def test_walk_through_works(section, tmp_path):
  (tmp_path / "mine.py").write_text(program_of(section), encoding="utf-8")
  done = subprocess.run(
    [sys.executable, "-W", "error", "mine.py"],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  first, *others = re.findall(r"accuracy (\S+)", done.stdout)
  assert float(first) > 0.93
  assert len(others) >= 2
  assert set(others) == {first}  # Frozen, loaded and restored.
  assert re.search(r"\| codes \| 262,432 \| 52,487 \| 1.600 \|", done.stdout)
  assert "'zero_fraction'" in done.stdout
