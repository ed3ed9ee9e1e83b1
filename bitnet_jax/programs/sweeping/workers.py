"""Runs members in worker processes."""

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import bitnet_jax
from bitnet_jax.programs.sweeping import worker
from bitnet_jax.programs.sweeping.plan import Member
from bitnet_jax.programs.sweeping.progress import Progress
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.interrupt import Interrupted

OnEnd = Callable[[Member, str | None], None]


class Job(Protocol):
  """What a process does between two lines of its input.

  Attributes:
    key: what it has in common with jobs that share a program; ``None``: none.
  """

  key: str | None

  def message(self) -> dict[str, Any]:
    """Returns what the process reads."""
    ...

  def take(self, answer: dict[str, Any]) -> None:
    """Takes an answer of the process, in a thread of its own."""
    ...


class Workers:
  """Processes that train members, each one member after another.

  They are in a process group of their own, so that Ctrl-C reaches this process
  only, which sends it on once.
  """

  def __init__(self, count: int, *locks: int):
    """Starts nothing yet.

    Args:
      count: number of processes.
      *locks: descriptors of locks, such as that of a sweep, which they inherit.
    """
    self._count, self._locks = count, locks
    self._processes: dict[int, subprocess.Popen[str]] = {}
    self._is_stopping = False

  def run(
    self,
    members: Sequence[Member],
    origin: Origin,
    progress: Progress,
    on_end: OnEnd,
  ) -> None:
    """Runs all members; ``on_end`` gets each with its error, in this thread.

    Raises:
      Interrupted: after a signal, once the processes have saved their
        checkpoints and ended.
    """
    jobs = [_MemberJob(member, origin, progress) for member in members]
    self.run_jobs(jobs, lambda job, error: on_end(job.member, error))

  def run_jobs(
    self, jobs: Sequence[Any], on_end: Callable[[Any, str | None], None]
  ) -> None:
    """Does all jobs; ``on_end`` gets each with its error, in this thread.

    Args:
      jobs: see ``Job``.
      on_end: called as they end, in any order.

    Raises:
      Interrupted: see ``run``.
    """
    waiting = _Waiting(jobs)
    ended: queue.SimpleQueue[tuple[Job, str | None]] = queue.SimpleQueue()
    threads = [
      threading.Thread(target=self._work, args=(i, waiting, ended))
      for i in range(min(self._count, len(jobs)))
    ]
    left = len(jobs)
    try:
      for thread in threads:
        thread.start()
      while left:
        on_end(*ended.get())
        left -= 1
    except BaseException as error:
      self._stop(error)
      raise
    finally:
      self._join(threads)

  def _stop(self, error: BaseException) -> None:
    """Has the processes save their checkpoints and end."""
    self._is_stopping = True
    number = signal.SIGTERM
    if isinstance(error, Interrupted):
      number = error.signal
    for process in list(self._processes.values()):
      if process.poll() is None:
        process.send_signal(number)

  def _join(self, threads: Sequence[threading.Thread]) -> None:
    """Waits for the threads; a second signal reaches the processes, too."""
    for thread in threads:
      while thread.is_alive():
        try:
          thread.join()
        except BaseException as error:
          self._stop(error)

  def _work(self, number, waiting, ended) -> None:
    """Gives jobs to one process until none is left."""
    process = None
    with contextlib.ExitStack() as stack:  # Closes their pipes, and waits.
      while not self._is_stopping:
        job = waiting.next(number)
        if job is None:
          break
        if process is None or process.poll() is not None:
          process = stack.enter_context(self._start())
          self._processes[number] = process
        error = _do(process, job)
        if self._is_stopping:
          break
        ended.put((job, error))

  def _start(self) -> subprocess.Popen[str]:
    """Starts a process."""
    root = f"{pathlib.Path(bitnet_jax.__file__).parents[1]}"
    paths = os.pathsep.join(
      [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    fraction = f"{0.9 / self._count:.2f}"
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": fraction, **os.environ}
    return subprocess.Popen(
      [sys.executable, "-m", worker.__name__],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env={**env, "PYTHONPATH": paths},
      pass_fds=self._locks,
      process_group=0,
      text=True,
      encoding="utf-8",
    )


class _Waiting:
  """Jobs that no process does yet; a process continues with what it knows."""

  def __init__(self, jobs: Sequence[Any]):
    self._lock = threading.Lock()
    self._left: dict[str, list[Job]] = {}
    self._at: dict[int, str] = {}
    for i, job in enumerate(jobs):
      self._left.setdefault(job.key or f"alone {i}", []).append(job)

  def next(self, number: int) -> Job | None:
    """Returns the next job of a process, ``None`` at the end.

    It has the program of the last one, if such a job is left; else one that no
    other process has; else that of most jobs.
    """
    with self._lock:
      key = self._at.get(number)
      if key not in self._left:
        taken = {*self._at.values()}
        fresh = [other for other in self._left if other not in taken]
        if not self._left:
          return None
        most = max(self._left, key=lambda other: len(self._left[other]))
        key = fresh[0] if fresh else most
      self._at[number] = key
      job = self._left[key].pop(0)
      if not self._left[key]:
        del self._left[key]
      return job


class _MemberJob:
  """A member of a sweep that a process trains by itself."""

  def __init__(self, member: Member, origin: Origin, progress: Progress):
    self.member, self._origin, self._progress = member, origin, progress
    self.key = member.key

  def message(self) -> dict[str, Any]:
    """See ``Job``."""
    return {
      "config": self.member.config,
      "place": self.member.place,
      "shares": self.member.key is not None,
      "origin": dataclasses.asdict(self.member.origin(self._origin)),
    }

  def take(self, answer: dict[str, Any]) -> None:
    """See ``Job``."""
    if "step" in answer:
      self._progress.step(self.member.name, answer["step"])


def _do(process: subprocess.Popen[str], job: Job) -> str | None:
  """Has a process do a job; returns its error, if any."""
  assert process.stdin is not None
  assert process.stdout is not None
  try:
    process.stdin.write(json.dumps(job.message()) + "\n")
    process.stdin.flush()
    for line in process.stdout:
      answer = worker.parse(line)
      job.take(answer)
      if "error" in answer:
        return answer["error"]
  except OSError:  # It ended while it was idle.
    pass
  status = process.wait()
  if status < 0:
    name = signal.Signals(-status).name
    return f"its worker process was ended by {name}, perhaps for lack of memory"
  return f"its worker process ended with status {status}"
