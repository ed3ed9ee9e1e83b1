"""Lists the products and collectives of a compiled program, from its HLO."""

import collections
import dataclasses
import math
import re

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
_BITS = {"pred": 8, "token": 0, "c64": 64, "c128": 128}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_DEFINITION = re.compile(r"^\s*(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\(")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*(?:e\d\w*)?)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONDITION = re.compile(r"condition=%?([\w.-]+)")
_BOUND = re.compile(r" constant\((\d+)\)")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|branch_computations)="
  r"(\{[^}]*\}|%?[\w.-]+)"
)
_OPERAND = re.compile(r"%([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective operation between devices.

  Attributes:
    kind: a name in ``COLLECTIVES``.
    shapes: (dtype, shape) of the results on each device.
    channel: equal for parts of one collective; ``None`` if unnamed.
    times: how often it runs.
  """

  kind: str
  shapes: tuple[tuple[str, tuple[int, ...]], ...]
  channel: int | None
  times: int

  def bytes_by_dtype(self) -> dict[str, int]:
    """Returns the bytes of the results on a device, over all its runs."""
    found: collections.Counter[str] = collections.Counter()
    for dtype, shape in self.shapes:
      found[dtype] += self.times * math.prod(shape) * _bits(dtype) // 8
    return dict(found)


def collectives(hlo: str) -> list[Collective]:
  """Lists the collectives of a program, each channel once.

  Args:
    hlo: text of an optimized module.
  """
  computations = _computations(hlo)
  times = _times(computations)
  found: dict[object, Collective] = {}
  for name, lines in computations.items():
    for line in lines:
      match = _DEFINITION.match(line)
      if not match:
        continue
      kind = match[3].removesuffix("-start")
      if kind not in COLLECTIVES or times.get(name, 0) == 0:
        continue
      shapes = [
        (dtype, tuple(int(n) for n in sizes.split(",") if n))
        for dtype, sizes in _ARRAY.findall(match[2])
      ]
      if match[3] != kind:  # The start op has operands, results and state.
        shapes = _results(kind, shapes)
      channel = _CHANNEL.search(line)
      number = int(channel[1]) if channel else None
      # Collectives that send nothing to other devices all have channel 1.
      key = (kind, number, *shapes) if channel else (name, match[1])
      one = Collective(kind, tuple(shapes), number, times[name])
      if key not in found or found[key].times < one.times:
        found[key] = one
  return list(found.values())


def _results(kind, shapes):
  arrays = [shape for shape in shapes if shape != ("u32", ())]
  if kind == "all-reduce":
    return arrays
  return arrays[len(arrays) // 2 :]


def products(hlo: str) -> list[str]:
  """Returns "left x right -> result" dtypes of all matrix products."""
  found = []
  for lines in _computations(hlo).values():
    dtypes, matches = {}, []
    for line in lines:
      match = _DEFINITION.match(line)
      array = _ARRAY.match(match[2]) if match else None
      if match and array:
        dtypes[match[1]] = array[1]
        matches += [(match, line)] if match[3] in ("convolution", "dot") else []
    for match, line in matches:
      left, right = _OPERAND.findall(line[match.end() :])[:2]
      found.append(f"{dtypes[left]} x {dtypes[right]} -> {dtypes[match[1]]}")
  return sorted(found)


def _computations(hlo):
  """Returns the lines of each computation, "ENTRY" for the first."""
  found: dict[str, list[str]] = {}
  name = None
  for line in hlo.splitlines():
    match = _COMPUTATION.match(line)
    if match and not line.startswith(" "):
      name = "ENTRY" if line.startswith("ENTRY") else match[1]
      found[name] = []
    elif name is not None:
      found[name].append(line)
  return found


def _times(computations):
  """Returns how often each computation runs."""
  times: collections.Counter[str] = collections.Counter()

  def visit(name, factor):
    times[name] += factor
    for line in computations.get(name, ()):
      inner = factor * _trips(line, computations)
      for called in _CALLED.findall(line):
        for target in _OPERAND.findall(called) or [called]:
          if target in computations:
            visit(target, inner)

  visit("ENTRY", 1)
  return times


def _trips(line, computations):
  """Returns the trip count of a loop that counts up, else 1."""
  if " while(" not in line:
    return 1
  known, condition = _TRIPS.search(line), _CONDITION.search(line)
  if known:
    return int(known[1])
  condition = computations.get(condition[1], ()) if condition else ()
  bounds = _BOUND.findall("\n".join(condition))
  return int(bounds[0]) if len(bounds) == 1 else 1


def _bits(dtype):
  if dtype in _BITS:
    return _BITS[dtype]
  digits = re.search(r"\d+", dtype)
  return int(digits[0]) if digits else 0
