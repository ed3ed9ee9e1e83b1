"""Prints what came of mutations, a line a reader."""

import argparse
import sys
import time

from tests.fuzz.program import OUTCOMES, fuzz
from tests.fuzz.readers import READERS


def main():
  """Tries the readers that the command line names."""
  parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
  parser.add_argument("--mutations", type=int, default=2000)
  parser.add_argument("--first", type=int, default=0, help="seed of the first")
  parser.add_argument("--reader", action="append", choices=list(READERS))
  arguments = parser.parse_args()
  row = "{:<26}" + "{:>10}" * (len(OUTCOMES) + 2)
  print(row.format("reader", "mutations", *OUTCOMES, "seconds"), flush=True)
  faults = []
  for name in arguments.reader or READERS:
    start = time.monotonic()
    found = fuzz([name], arguments.first, arguments.mutations)
    counts = [sum(x.outcome == outcome for x in found) for outcome in OUTCOMES]
    seconds = round(time.monotonic() - start)
    print(row.format(name, len(found), *counts, seconds), flush=True)
    faults += [(name, x) for x in found if x.is_fault]
  for name, x in faults:
    print(f"\n{name}, seed {x.seed}: {x.outcome}\n{x.message}", file=sys.stderr)
  return 1 if faults else 0


if __name__ == "__main__":
  sys.exit(main())
