"""What programs show on the terminal: messages, or JSON lines of events."""

import contextlib
import json
import pathlib
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import tqdm

from bitnet_jax import choices
from bitnet_jax.data import progress
from bitnet_jax.train.devices import multihost
from bitnet_jax.train.folder import bucket

# "text" shows messages and a progress bar on standard error; "json" prints each
# event as a JSON line on standard output instead; "quiet" shows neither.
MODES = ("text", "json", "quiet")
SCRIPT = "bitnet-jax"

_mode = MODES[0]


@contextlib.contextmanager
def showing(mode: str) -> Iterator[None]:
  """Shows what runs say in one of ``MODES``, for a block of code."""
  global _mode
  choices.check(mode, MODES, key="mode")
  before, _mode = _mode, mode
  hides = progress.hidden() if mode != "text" else contextlib.nullcontext()
  try:
    with hides:
      yield
  finally:
    _mode = before


def shows_text() -> bool:
  """Whether messages and the progress bar are shown."""
  return _mode == "text"


def say(message: str) -> None:
  """Shows a message, from the primary process only."""
  if shows_text() and multihost.is_primary():
    tqdm.tqdm.write(bucket.with_addresses(message), file=sys.stderr)


def event(name: str, **values: Any) -> None:
  """Prints an event in the mode "json", from the primary process only."""
  if _mode == "json" and multihost.is_primary():
    line = json.dumps({"event": name, **values}, ensure_ascii=False)
    print(line, flush=True)


def command(verb: str, *arguments: str) -> str:
  """Returns the command of a program, in the form in which this one started.

  Args:
    verb: name of the program, such as "predict".
    *arguments: its arguments.
  """
  started = pathlib.PurePath(sys.argv[0])
  words = [SCRIPT, verb]
  if started.suffix == ".py" and started.parent.name == "experiments":
    words = ["python", f"{started.with_name(verb)}.py"]
  return " ".join([*words, *map(shlex.quote, arguments)])
