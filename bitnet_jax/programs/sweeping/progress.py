"""The progress bar of a sweep: steps of all members, and who is at work."""

import sys
import threading
from collections.abc import Sequence

import tqdm

from bitnet_jax.programs.sweeping.plan import Member
from bitnet_jax.train import console

_SHOWN = 2  # names of members at work


class Progress:
  """One bar over all members; used by several threads.

  Its time left follows from the steps of this start. Steps of earlier starts
  count as done, and those of members that end early or fail as not needed.
  """

  def __init__(self, members: Sequence[Member]):
    self._all = {member.name: member for member in members}
    finished = [member for member in members if member.is_finished]
    done = sum(member.total_steps for member in finished)
    self._ended, self._at = len(finished), dict[str, int]()
    self._total = sum(member.total_steps for member in members)
    self._lock = threading.Lock()
    self._bar = tqdm.tqdm(
      initial=done,
      total=self._total,
      unit="step",
      mininterval=0.5 if sys.stderr.isatty() else 10,
      disable=not console.shows_text(),
    )
    self._describe()

  def step(self, name: str, step: int) -> None:
    """Moves a member to a step; its first one is where it begins."""
    if self._bar.disable:
      return
    with self._lock:
      if name not in self._at:
        # Not a part of the speed.
        self._bar.initial += step
        self._bar.n += step
        self._bar.last_print_n += step
        self._at[name] = step
        self._describe()
      self._bar.update(step - self._at[name])
      self._at[name] = step

  def end(self, name: str) -> None:
    """Counts a member as ended."""
    if self._bar.disable:
      return
    with self._lock:
      missing = self._all[name].total_steps - self._at.pop(name, 0)
      self._total -= missing
      self._bar.total = self._total
      self._ended += 1
      self._describe()

  def close(self) -> None:
    """Closes the bar."""
    self._bar.close()

  def _describe(self) -> None:
    names = [*self._at]
    at_work = "; ".join(names[:_SHOWN]) + ("; ..." if names[_SHOWN:] else "")
    text = f"{self._ended} of {len(self._all)} members"
    self._bar.set_description(f"{text}, {at_work}" if at_work else text)
