"""Cases of the parity tests, kept as a few flat arrays."""

import numpy as np

ARRAYS = ("x", "w", "bias", "g", "y", "dx", "dw", "dbias", "packed_y")
FLAGS = ("measure", "sides", "bfloat16", "near_half_weight")
# What the numbers of the flags stand for.
MEASURES = ("absmean", "absmedian")
SIDES = ("both", "weights", "acts")


def save(path, cases):
  """Writes cases: dicts of ``ARRAYS`` (some absent), ``FLAGS``, near tokens."""
  fields = {flag: np.array([c[flag] for c in cases]) for flag in FLAGS}
  for name in ARRAYS:
    arrays = [c.get(name) for c in cases]
    shapes = np.full((len(cases), 4), -1, np.int32)
    for row, a in zip(shapes, arrays, strict=True):
      if a is not None:
        row[: a.ndim] = a.shape
    fields[f"{name}_shapes"] = shapes
    flat = [np.ravel(a) for a in arrays if a is not None]
    fields[name] = np.concatenate([*flat, []]).astype(np.float32)
  near = [np.ravel(c["near_half_tokens"]) for c in cases]
  fields["near_half_tokens"] = np.concatenate(near)
  np.savez_compressed(path, **fields)


def load(path):
  """Returns what ``save`` was given."""
  with np.load(path, allow_pickle=False) as file:
    fields = dict(file)
  starts = dict.fromkeys((*ARRAYS, "near_half_tokens"), 0)

  def take(name, shape):
    start, size = starts[name], int(np.prod(shape))
    starts[name] += size
    return fields[name][start : start + size].reshape(shape)

  cases = []
  for i in range(len(fields["measure"])):
    case = {flag: fields[flag][i].item() for flag in FLAGS}
    for name in ARRAYS:
      shape = fields[f"{name}_shapes"][i]
      if np.any(shape >= 0):
        case[name] = take(name, shape[shape >= 0])
    case["near_half_tokens"] = take("near_half_tokens", case["x"].shape[:-1])
    cases.append(case)
  return cases
