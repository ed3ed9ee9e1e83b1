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

import bitnet_jax
from bitnet_jax.programs.sweeping import worker
from bitnet_jax.programs.sweeping.plan import Member
from bitnet_jax.programs.sweeping.progress import Progress
from bitnet_jax.train.folder.starts import Origin
from bitnet_jax.train.interrupt import Interrupted

OnEnd = Callable[[Member, str | None], None]


class Workers:
  """Processes that train members, each one member after another.

  They are in a process group of their own, so that Ctrl-C reaches this process
  only, which sends it on once.
  """

  def __init__(self, count: int, lock: int):
    """Starts nothing yet.

    Args:
      count: number of processes.
      lock: descriptor of the sweep's lock, which they inherit.
    """
    self._count, self._lock = count, lock
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
    waiting: queue.SimpleQueue[Member] = queue.SimpleQueue()
    for member in members:
      waiting.put(member)
    ended: queue.SimpleQueue[tuple[Member, str | None]] = queue.SimpleQueue()
    threads = [
      threading.Thread(
        target=self._work, args=(i, waiting, origin, progress, ended)
      )
      for i in range(min(self._count, len(members)))
    ]
    left = len(members)
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

  def _work(self, number, waiting, origin, progress, ended) -> None:
    """Gives members to one process until none is left."""
    process = None
    with contextlib.ExitStack() as stack:  # Closes their pipes, and waits.
      while not self._is_stopping:
        try:
          member = waiting.get_nowait()
        except queue.Empty:
          break
        if process is None or process.poll() is not None:
          process = stack.enter_context(self._start())
          self._processes[number] = process
        error = _train(process, member, origin, progress)
        if self._is_stopping:
          break
        ended.put((member, error))

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
      pass_fds=(self._lock,),
      process_group=0,
      text=True,
      encoding="utf-8",
    )


def _train(
  process: subprocess.Popen[str],
  member: Member,
  origin: Origin,
  progress: Progress,
) -> str | None:
  """Has a process train a member; returns its error, if any."""
  assert process.stdin is not None
  assert process.stdout is not None
  task = {
    "config": member.config,
    "place": member.place,
    "origin": dataclasses.asdict(member.origin(origin)),
  }
  try:
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    for line in process.stdout:
      answer = worker.parse(line)
      if "step" in answer:
        progress.step(member.name, answer["step"])
      if "error" in answer:
        return answer["error"]
  except OSError:  # It ended while it was idle.
    pass
  status = process.wait()
  if status < 0:
    name = signal.Signals(-status).name
    return f"its worker process was ended by {name}, perhaps for lack of memory"
  return f"its worker process ended with status {status}"
