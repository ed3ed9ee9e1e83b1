"""Files that are damaged at random."""


def corrupt(data, rng):
  """Changes, cuts or doubles some bytes."""
  data = bytearray(data)
  for _ in range(rng.randint(1, 4)):
    at = rng.randrange(max(len(data), 1))
    kind = rng.randrange(5)
    if kind == 0 and data:
      data[at] = rng.randrange(256)
    elif kind == 1 and data:
      data[at] ^= 1 << rng.randrange(8)
    elif kind == 2:
      del data[at : at + rng.randint(1, 40)]
    elif kind == 3:
      data[at:at] = data[at : at + rng.randint(1, 40)]
    else:
      data[at : at + 8] = rng.choice(
        [b"99999999", b"\xff" * 8, b"null", b"-1", b"[[[[", b"1e999"]
      )
  return bytes(data)
