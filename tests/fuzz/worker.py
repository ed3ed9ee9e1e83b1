"""Reads damaged files one after the other, under limits of memory and time.

``python -m tests.fuzz.worker FIRST COUNT DONE READER...`` tries each reader
with the seeds from FIRST on, but for as many as are DONE. It prints which it
begins, and what came of it. One that takes too long, or that ends the process,
is the one that was begun last.
"""

import itertools
import json
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings

MEMORY = 2**30  # bytes beyond those of the process before
SECONDS = 10


def main(first, count, done, *names):
  """Tries readers with so many mutations each."""
  # Read before there is a limit, so that modules are there and threads run.
  from tests.fuzz.readers import FAULTY, READERS

  readers = {**READERS, "faulty": FAULTY}
  warnings.simplefilter("ignore")
  with tempfile.TemporaryDirectory() as folder:
    root = pathlib.Path(folder)
    seeds = range(first, first + count)
    jobs = list(itertools.product(names, seeds))[done:]
    for name in dict(jobs):
      _write_and_read(readers[name], root, name)
    limit = _mapped() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, seed in jobs:
      copy = shutil.copytree(root / name, root / "copy")
      print(json.dumps([name, seed]), flush=True)
      found = _try(readers[name], copy, seed)
      print(json.dumps([name, seed, *found]), flush=True)
      shutil.rmtree(copy)
      if seed % 100 == 99:
        _forget()


def _write_and_read(reader, root, name):
  """Writes whole files, and reads them."""
  good = root / name
  good.mkdir()
  reader.write(good)
  # What the first reading leaves may be read by the second.
  copy = shutil.copytree(good, root / "copy")
  for _ in range(2):
    reader.read(copy)
  shutil.rmtree(copy)


def _try(reader, folder, seed):
  """Returns "read", "refused" or what is wrong, and a message."""
  names = [str(folder), *(path.name for path in folder.rglob("*"))]
  reader.mutate(folder, random.Random(f"{seed}"))
  signal.alarm(SECONDS)  # Whose signal ends the process.
  try:
    reader.read(folder)
    return "read", ""
  except (OSError, ValueError) as error:
    message = str(error)
    if any(part in message for part in (*names, *reader.speaks)):
      return "refused", message[:200]
    return "names no file", "".join(traceback.format_exception(error))[-1500:]
  except BaseException as error:
    return "raw error", "".join(traceback.format_exception(error))[-1500:]
  finally:
    signal.alarm(0)


def _mapped():
  """Returns the bytes of address space that the process has."""
  status = pathlib.Path("/proc/self/statm").read_text()
  return int(status.split()[0]) * resource.getpagesize()


def _forget():
  """Drops compiled programs, one for each shape."""
  if "jax" in sys.modules:
    sys.modules["jax"].clear_caches()


if __name__ == "__main__":
  main(*map(int, sys.argv[1:4]), *sys.argv[4:])
