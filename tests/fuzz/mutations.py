"""Ways to damage files, by what is in them.

Each takes the content of a file and a random generator, and returns other
content. Few changes at a time: what is wrong everywhere is refused at once.
"""

import gzip
import io
import json
import lzma
import os
import pickletools
import struct
import zipfile

import numpy as np

from tests.corruption import corrupt

_VALUES = (
  *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0),
  *(1e308, float("nan"), float("inf"), "", "x", "\0", "\ud800", "9" * 400),
  *("a/b", "../x", "/dev/zero", "x" * 10_000, [], {}, [[]], [0], [None] * 100),
  *({"": None}, {"type": "Sequence"}, [{"a": [1, 2, {"b": 3}]}]),
)
_DEEP = ("[" * 200_000, '{"a":' * 200_000, "[" * 900 + "]" * 900, "9" * 5000)


def json_values(data, rng):
  """Puts other values, and keys, in places of a JSON text."""
  try:
    content = json.loads(data)
  except ValueError:
    return corrupt(data, rng)
  for _ in range(rng.randint(1, 2)):
    content = _change(content, rng)
  text = json.dumps(content)
  kind = rng.randrange(12)
  if kind == 0:  # a key that is there twice
    text = text.replace("{", '{"format": 1, "format": 2, ', 1)
  elif kind == 1:
    at = rng.choice([i for i, c in enumerate(text) if c in ":,[ "] or [0])
    text = text[: at + 1] + rng.choice(_DEEP) + text[at + 1 :]
  return text.encode("utf-8", errors="surrogatepass")


def _change(content, rng):
  """Returns JSON values of which one is another."""
  if rng.random() < 0.15 or not isinstance(content, dict | list) or not content:
    return rng.choice(_VALUES)
  places = list(content) if isinstance(content, dict) else range(len(content))
  place = rng.choice(list(places))
  kind = rng.randrange(10)
  changed = content.copy()
  if kind == 0:
    del changed[place]
  elif kind == 1 and isinstance(content, dict):
    changed[rng.choice(["", "x", "type", "9" * 50])] = changed.pop(place)
  elif kind == 1:
    changed.append(changed[place])
  elif kind == 2 and type(content[place]) in (int, float):
    changed[place] = content[place] * rng.choice([-1, 0.5, 1000, 10**9])
  elif kind == 3:
    changed[place] = content[rng.choice(list(places))]
  else:
    changed[place] = _change(content[place], rng)
  return changed


def json_lines(data, rng):
  """Damages one of the lines, each of which is JSON."""
  lines = data.split(b"\n")
  at = rng.randrange(len(lines))
  kind = rng.randrange(6)
  if kind == 0:
    lines.insert(at, b"")
  elif kind == 1:
    lines[at] = rng.choice(_DEEP).encode()
  elif kind == 2:
    return corrupt(data, rng)
  else:
    lines[at] = json_values(lines[at], rng)
  return b"\n".join(lines)


def text(data, rng):
  """Puts odd characters, numbers and line ends into a text."""
  odd = (
    *(b"\t", b"\n", b"\r\n", b"\r", b"\0", b'"', b'""', b"\xff", b"\xc3"),
    *("\u2028".encode(), b"9" * 400, b"1e999", b"nan", b"-", b" " * 1000),
    *(b"900000000", b"\n\n\n", b"\xef\xbb\xbf", b"a" * 20_000, b"\t" * 500),
  )
  for _ in range(rng.randint(1, 3)):
    at = rng.randrange(len(data) + 1)
    end = min(at + rng.choice([0, 0, 1, 5]), len(data))
    data = data[:at] + rng.choice(odd) + data[end:]
  return data if rng.random() < 0.7 else corrupt(data, rng)


def packed(data, rng, *, module, inner=text):
  """Damages a packed file, or what is in it; or lets it become very large."""
  kind = rng.randrange(12)
  if kind == 0:
    line = rng.choice([b"\0", b"\n", b"a\n", b"a\ta\n", b"\t", b'""\t', b"[],"])
    return module.compress(line * 2**20) * rng.choice([1, 2, 40])
  if kind == 1:
    return data + rng.choice([data, b"\0" * 9, b"junk", data[:20]])
  if kind == 2 and module is lzma:  # a table of gigabytes
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]
    data = bytearray(lzma.compress(b"a b\n", filters=filters))
    data[16] = 40
    return bytes(data)
  if kind < 7:
    return corrupt(data, rng)
  return module.compress(inner(module.decompress(data), rng))


def gz(data, rng, inner=text):
  """See ``packed``."""
  return packed(data, rng, module=gzip, inner=inner)


def xz(data, rng, inner=text):
  """See ``packed``."""
  return packed(data, rng, module=lzma, inner=inner)


_HEADERS = (
  *("(20000000000,)", "(-1,)", "(0,)", "()", "(1, 1, 1)", "(2**3,)", "3"),
  *(f"({'9' * 400},)", "('a',)", "(1.5,)", "(None,)", "(" * 300, "(1,\0)"),
)
_DESCRIPTIONS = (
  *("'|O'", "'<f8'", "'<c16'", "'<U0'", "'<U9'", "'|S0'", "'|V8'", "'<M8[s]'"),
  *("'>i2'", "[('a', '<i4')]", "('<i4', (2,))", "'|b1'", "'<f2'", "'x'", "5"),
)
_ARRAYS = (
  *(np.array(0), np.array("ab"), np.array(["a", "b"]), np.zeros(0), np.ones(3)),
  *(np.array(True), np.full(3, np.nan), np.full((2, 2), 1e300), np.array(1j)),
  *(np.array([2**63], np.uint64), np.array([-(2**63)]), np.array([[1, 2]])),
  *(np.zeros((0, 2), int), np.array([[900_000_000, 0]]), np.ones((1, 1, 1, 1))),
  *(np.array([900_000_000]), np.array(900_000_000), np.zeros((3, 0))),
)


def npz(data, rng):
  """Damages an archive: its members, their headers, or how they are packed."""
  if rng.random() < 0.3:
    return corrupt(data, rng)
  members = dict(np.load(io.BytesIO(data), allow_pickle=False))
  names = list(members)
  kinds = {name: _npy(array) for name, array in members.items()}
  for _ in range(rng.randint(1, 2)):
    name, kind = rng.choice(names), rng.randrange(8)
    if kind == 0:
      kinds.pop(name, None)
    elif kind == 1:
      kinds[name] = _npy(rng.choice(_ARRAYS))
    elif kind == 2:
      kinds[name] = _npy(members[rng.choice(names)])
    elif kind == 3:
      kinds[name] = corrupt(_npy(members[name]), rng)
    elif kind == 4:
      kinds[name] = _npy(_disturbed(members[name], rng))
    else:
      kinds[name] = _header(members[name], rng)
  return _archive(kinds, rng)


def _disturbed(array, rng):
  """Returns an array in which one number is another, or of another dtype."""
  kinds = (np.uint64, np.int8, np.float64, np.float16, bool, complex, "U5")
  if rng.random() < 0.4 or not array.size or array.dtype.kind not in "iuf":
    with np.errstate(all="ignore"):
      return (
        array.astype(rng.choice(kinds)) if array.dtype.kind != "U" else array
      )
  array = array.copy()
  limits = np.iinfo if array.dtype.kind in "iu" else np.finfo
  extremes = (limits(array.dtype).min, limits(array.dtype).max)
  number = rng.choice([0, 1, *extremes])
  array.reshape(-1)[rng.randrange(array.size)] = number
  return array


def _npy(array):
  stream = io.BytesIO()
  np.save(stream, array, allow_pickle=False)
  return stream.getvalue()


def _header(array, rng):
  """Returns an array whose header says something else."""
  said = {
    "descr": repr(np.lib.format.dtype_to_descr(array.dtype)),
    "fortran_order": "False",
    "shape": repr(array.shape),
  }
  key = rng.choice(list(said))
  said[key] = rng.choice(_HEADERS if key == "shape" else _DESCRIPTIONS)
  inside = ", ".join(f"'{name}': {value}" for name, value in said.items())
  header = (rng.choice(["{%s}", "{%s, }", "%s", "{%s}#\\"]) % inside).encode()
  version = rng.choice([1, 1, 1, 2, 3, 9])
  size = struct.pack("<H" if version == 1 else "<I", len(header))
  start = b"\x93NUMPY" + bytes([version, 0]) + size
  return start + header + array.tobytes()


def _archive(members, rng):
  """Packs members, in one of the ways that there are, or in a wrong one."""
  kind = rng.choice(
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]
  )
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w", kind) as archive:
    for name, content in members.items():
      archive.writestr(f"{name}.npy", content)
    odd = rng.randrange(12)
    if odd == 0:
      archive.writestr("/etc/passwd.npy", b"x")
    elif odd == 1:
      archive.writestr("../../x", b"x")
    elif odd == 2 and members:  # without the ending, so named twice
      archive.writestr(*rng.choice(list(members.items())))
    elif odd == 3:
      zeros = _npy(np.zeros(2**26, np.uint8))
      archive.writestr("zeros.npy", zeros, zipfile.ZIP_DEFLATED)
  return stream.getvalue()


def _split(data):
  """Returns the operations of a pickle, as bytes."""
  places = []
  try:
    places = [place for *_, place in pickletools.genops(data)]
  except Exception:  # of one that is damaged already
    pass
  ends = [*places[1:], len(data)]
  return [data[a:b] for a, b in zip(places, ends, strict=True)]


# Operations that published files have, and others.
_OPERATIONS = (
  *(b"(", b".", b"0", b"1", b"2", b"N", b"Q", b"R", b"]", b"}", b")", b"a"),
  *(b"b", b"e", b"o", b"s", b"t", b"u", b"l", b"d", b"\x81", b"\x85", b"\x86"),
  *(b"\x87", b"\x88", b"\x89", b"\x90", b"\x92", b"\x93", b"\x94", b"\x97"),
  *(b"K\1", b"M\1\2", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"U\1a"),
  *(b"q\0", b"h\0", b"h\xff", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f"),
  *(b"T\xff\xff\xff\x7f", b"C\x08AAAAAAAA", b"\x8a\xff" + b"\xff" * 255),
  *(b"\x8b\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 7 + b"\x7f", b"G" + b"\0" * 8),
  *(b"\x95" + b"\xff" * 7 + b"\x7f", b"\x82\1", b"I1\n", b"L1L\n", b"F1e999\n"),
  *(b"S'a'\n", b"Va\n", b"Pa\n", b"p0\n", b"g0\n", b"\x80\2", b"\x80\5"),
  *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cos\nsystem\n"),
  *(b"cnumpy.core.multiarray\n_reconstruct\n", b"c__builtin__\nlist\n"),
  *(b"ccollections\ndefaultdict\n", b"cscipy.sparse.csr\ncsr_matrix\n"),
  *(b"ib\nc\n", b"U\1O", b"U\2O8", b"U\2f8", b"U\2i4", b"\x85" * 5000),
)


def pickle(data, rng):
  """Changes operations of a pickle, or bytes."""
  if rng.random() < 0.2:
    return corrupt(data, rng)
  operations = _split(data) or [b"."]
  for _ in range(rng.randint(1, 4)):
    at, kind = rng.randrange(len(operations)), rng.randrange(6)
    if kind == 0:
      del operations[at]
      operations = operations or [b"."]
    elif kind == 1:
      operations.insert(at, rng.choice(operations))
    elif kind == 2:
      operations[at] = rng.choice(operations)
    elif kind == 3:
      operations[at] = operations[at][:1] + corrupt(operations[at][1:], rng)
    elif kind == 4:
      operations[at : at + 1] = [rng.choice(_OPERATIONS) for _ in range(3)]
    else:
      operations[at] = rng.choice(_OPERATIONS)
  return b"".join(operations)


def safetensors(data, rng):
  """Damages the header of a file of arrays, or its bytes."""
  size = int.from_bytes(data[:8], "little")
  kind = rng.randrange(8)
  if kind == 0:
    return (
      rng.choice([2**63, 2**30, 0, size + 1]).to_bytes(8, "little") + data[8:]
    )
  if kind < 4:
    return corrupt(data, rng)
  header = json_values(data[8 : 8 + size], rng)
  return len(header).to_bytes(8, "little") + header + data[8 + size :]


def parquet(data, rng):
  """Changes bytes of pages and of the footer in place, as offsets count."""
  if rng.random() < 0.2:
    return corrupt(data, rng)
  data = bytearray(data)
  for _ in range(rng.randint(1, 3)):
    at = rng.randrange(4, len(data) - 8)
    odd = (0, 1, 127, 128, 255, data[at] ^ 1, data[at] ^ 128, data[at] + 2)
    data[at] = rng.choice([*odd, rng.randrange(256)]) % 256
  return bytes(data)


def sentencepiece(data, rng):
  """Changes fields of a model, or bytes."""
  from sentencepiece import sentencepiece_model_pb2 as messages

  if rng.random() < 0.3:
    return corrupt(data, rng)
  model = messages.ModelProto.FromString(data)
  for _ in range(rng.randint(1, 3)):
    rng.choice(_OF_MODELS)(model, rng)
  return model.SerializePartialToString()


def _change_piece(model, rng):
  piece = rng.choice(model.pieces)
  kind = rng.randrange(4)
  if kind == 0:
    piece.type = rng.randint(1, 6)
  elif kind == 1:
    piece.score = rng.choice([float("nan"), float("inf"), -1e38, 0, 1e38])
  elif kind == 2:
    odd = ("", "▁", "<unk>", "<0x41>", "a" * 5000, "<extra_id_7>", "\0")
    piece.piece = rng.choice(odd)
  else:
    del model.pieces[rng.randrange(len(model.pieces))]


def _change_rules(model, rng):
  trainer = model.trainer_spec
  trainer.model_type = rng.randint(1, 4)
  trainer.byte_fallback = rng.random() < 0.5
  trainer.unk_surface = rng.choice(["", "u" * 100_000])
  model.normalizer_spec.add_dummy_prefix = rng.random() < 0.5


def _change_roles(model, rng):
  name = rng.choice(["unk_id", "bos_id", "eos_id", "pad_id"])
  number = rng.choice([-1, 0, 5, 10**6, 2**31 - 1])
  setattr(model.trainer_spec, name, number)


def _change_characters(model, rng):
  """Replaces the table of characters, at random or by one that leads away."""
  table = bytearray(rng.randbytes(rng.choice([0, 3, 300, 1029])))
  table[:4] = struct.pack("<I", rng.choice([0, 256, 1024, 2**31]))
  if rng.random() < 0.5:
    wild = struct.pack("<I", rng.getrandbits(32)) * 256
    table = struct.pack("<I", 1024) + wild + b"a\0"
  model.normalizer_spec.precompiled_charsmap = bytes(table)


_OF_MODELS = (_change_piece, _change_rules, _change_roles, _change_characters)


# Ends of names, and how files of them are damaged.
BY_ENDING = {
  ".json": json_values,
  ".jsonl": json_lines,
  ".npz": npz,
  ".txt": text,
  ".tsv": text,
  ".csv": text,
  ".parquet": parquet,
  ".index": text,
  ".gz": gz,
  ".xz": xz,
  ".model": sentencepiece,
  ".safetensors": safetensors,
}


def put_in_place(path, content, rng):
  """Puts something else than a file in its place; whether it did."""
  kind = rng.randrange(60)
  if kind > 8:
    return False
  path.unlink()
  if kind == 0:
    path.mkdir()
  elif kind == 1:
    os.mkfifo(path)
  elif kind == 2:
    path.symlink_to("/dev/zero")
  elif kind == 3:
    path.symlink_to(path.name)
  elif kind == 4:
    with path.open("wb") as file:
      file.write(content)
      file.truncate(2**40)
  elif kind == 5:
    path.touch()
  elif kind == 6:
    path.symlink_to("/proc/self/mem")
  elif kind == 7:
    path.write_bytes(bytes(2**20))
  return True
