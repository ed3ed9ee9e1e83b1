"""Planetoid's published files, written here as Python 2 wrote them."""

import collections
import io
import os
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse

from bitnet_jax.data import graphs
from bitnet_jax.data.sources import planetoid
from bitnet_jax.data.views import nodes
from tests.data import loading

NUM_VALID = 2
# Four test nodes, of which number 9 is missing, as some of CiteSeer's are.
TEST_INDEX = [10, 7, 8]
NUM_NODES = 11


class _Python2Pickler(pickle._Pickler):
  """Writes bytes as Python 2 wrote its strings, and matrices as it did."""

  dispatch: ClassVar = dict(pickle._Pickler.dispatch)

  def save_bytes(self, value):
    self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
    self.memoize(value)

  dispatch[bytes] = save_bytes

  def save_global(self, obj, name=None):
    """Names things by where they were."""
    places = {
      scipy.sparse.csr_matrix: "scipy.sparse.csr\ncsr_matrix",
      np.ndarray: "numpy\nndarray",
      np.dtype: "numpy\ndtype",
      np.empty(0).__reduce__()[0]: "numpy.core.multiarray\n_reconstruct",
    }
    if obj in places:
      self.write(pickle.GLOBAL + places[obj].encode() + b"\n")
    else:
      super().save_global(obj, name)

  dispatch[type(len)] = save_global
  dispatch[type] = save_global

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, scipy.sparse.csr_matrix):
      state = {
        "format": "csr",
        "_shape": obj.shape,
        "indptr": obj.indptr,
        "indices": obj.indices,
        "data": obj.data,
        "maxprint": 50,
      }
      self.save_reduce(copyreg_newobj, (scipy.sparse.csr_matrix,), state)
    else:
      super().save(obj, save_persistent_id)


def copyreg_newobj(cls):
  return cls.__new__(cls)


copyreg_newobj.__name__ = "__newobj__"


def dump(value):
  stream = io.BytesIO()
  _Python2Pickler(stream, protocol=2).dump(value)
  return stream.getvalue()


def make_values():
  """Contents of the files by part: 7 nodes and 3 test nodes of 3 classes."""
  rng = np.random.default_rng(0)
  features = rng.integers(0, 2, (10, 5)).astype(np.float32)
  labels = np.eye(3, dtype=np.int32)[np.arange(10) % 3]
  csr = scipy.sparse.csr_matrix
  edges = collections.defaultdict(list)
  edges.update(
    {i: [(i + 1) % NUM_NODES, i] for i in range(NUM_NODES) if i != 9}
  )
  edges[3] += [4, 4]
  return (
    {
      "x": csr(features[:3]),
      "allx": csr(features[:7]),
      "tx": csr(features[7:]),
      "y": labels[:3],
      "ally": labels[:7],
      "ty": labels[7:],
      "graph": edges,
    },
    features,
    labels,
  )


@pytest.fixture
def folder(tmp_path):
  """Returns ``folder(**changes)``: the files, some replaced by bytes."""

  def folder(name="citeseer", **changes):
    parts = {part: dump(value) for part, value in make_values()[0].items()}
    parts["test.index"] = "".join(f"{i}\n" for i in TEST_INDEX).encode()
    for part, content in (parts | changes).items():
      (tmp_path / f"ind.{name}.{part.replace('__', '.')}").write_bytes(content)
    return tmp_path

  return folder


def read(folder):
  return planetoid.read(folder, "citeseer", num_valid=NUM_VALID)


def test_written_pickles_are_like_the_published_ones():
  """The names in them, and bytes as strings of Python 2."""
  import pickletools

  operations = [
    (operation.name, argument)
    for operation, argument, _ in pickletools.genops(
      dump(make_values()[0]["x"])
    )
  ]
  names = {argument for name, argument in operations if name == "GLOBAL"}
  assert names == {
    "scipy.sparse.csr csr_matrix",
    "numpy.core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
  }
  assert "NEWOBJ" in dict(operations)
  assert "BINSTRING" in dict(operations)


def test_parts_are_put_in_their_places(folder):
  _, features, labels = make_values()
  dataset = nodes.make_dataset(read(folder()), where="here")
  expected = np.zeros((NUM_NODES, 5), np.float32)
  expected[:7] = features[:7]
  expected[TEST_INDEX] = features[7:]
  np.testing.assert_array_equal(graphs.dense(dataset.graph.features), expected)
  np.testing.assert_array_equal(dataset.labels[:7], labels[:7].argmax(1))
  np.testing.assert_array_equal(
    dataset.labels[TEST_INDEX], labels[7:].argmax(1)
  )
  assert np.flatnonzero(~dataset.has_label).tolist() == [9]
  assert {k: v.tolist() for k, v in dataset.splits.items()} == {
    "train": [0, 1, 2],
    "valid": [3, 4],
    "test": [7, 8, 10],
  }
  # A ring but for the edge from 9, each edge once in each direction.
  assert dataset.graph.num_edges == 2 * (NUM_NODES - 1)


class _Attack:
  def __init__(self, call, *arguments):
    self.call, self.arguments = call, arguments

  def __reduce__(self):
    return self.call, self.arguments


@pytest.mark.parametrize("part", ["x", "ty", "graph"])
@pytest.mark.parametrize(
  "attack",
  [
    lambda path: _Attack(os.system, f"touch {path}"),
    lambda path: _Attack(eval, f"open({str(path)!r}, 'w')"),
    lambda path: _Attack(open, str(path), "w"),
    lambda path: _Attack(np.save, str(path), 1),
    lambda path: _Attack(getattr, "", "join"),
  ],
)
def test_pickle_that_asks_for_more_is_refused_and_runs_nothing(
  folder, tmp_path, part, attack
):
  trace = tmp_path / "trace"
  content = pickle.dumps(attack(trace), protocol=2)
  with pytest.raises(
    ValueError, match=rf"ind\.citeseer\.{part} is refused: it asks for"
  ):
    read(folder(**{part: content}))
  assert not list(tmp_path.glob("trace*"))


def global_(name):
  return pickle.GLOBAL + name.replace(" ", "\n").encode() + b"\n"


def array_pickle(*, dtype, shape, content):
  """Returns the pickle of an array, made of its parts."""
  return b"".join(
    [
      pickle.PROTO + b"\2" + global_("numpy.core.multiarray _reconstruct"),
      global_("numpy ndarray") + b"K\0\x85U\1b\x87R(K\1",
      b"(" + b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t",
      global_("numpy dtype") + b"U" + bytes([len(dtype)]) + dtype,
      b"K\0K\1\x87R(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89",
      b"U" + bytes([len(content)]) + content + b"tb.",
    ]
  )


def test_array_that_is_made_of_its_parts_is_read(folder):
  content = np.eye(3, dtype="<i4")[np.arange(3) % 3].tobytes()
  pickled = array_pickle(dtype=b"i4", shape=(3, 3), content=content)
  np.testing.assert_array_equal(
    read(folder(y=pickled))["labels"], read(folder())["labels"]
  )


# What it says of memory, of objects, or of more bytes than there are.
@pytest.mark.parametrize(
  ("dtype", "shape", "content"),
  [
    (b"O8", (1, 1), b"\x41" * 8),
    (b"V8", (1, 1), b"\x41" * 8),
    (b"S8", (1, 1), b"\x41" * 8),
    (b"c8", (1, 1), b"\x41" * 8),
    (b"f8", (2**31 - 1, 2**31 - 1), b""),
    (b"f8", (3, -3), b""),
    (b"i4", (3, 3), b"\0" * 35),
    (b"i4", (3, 3), b"\0" * 40),
    (b"i4", (1,) * 60, b"\0" * 4),
  ],
)
@pytest.mark.parametrize("part", ["ty", "ally"])
def test_array_of_anything_but_its_numbers_is_refused(
  folder, part, dtype, shape, content
):
  pickled = array_pickle(dtype=dtype, shape=shape, content=content)
  with pytest.raises(ValueError, match=rf"citeseer\.{part} "):
    read(folder(**{part: pickled}))


# An array of objects over given bytes, which are taken for an address.
POINTER = b"\x80\3cnumpy\nndarray\nK\1\x85U\1OC\x08AAAAAAAA\x87R."


def nested_tuples(depth):
  """A dict whose key is nested so deep that its hash ends the process."""
  return b"\x80\2}N" + b"\x85" * depth + b"Ns."


def shared_list(length):
  """As many nodes as neighbours of each, in one list."""
  numbers = b"".join(b"M" + struct.pack("<H", i) for i in range(length))
  items = b"".join(
    b"M" + struct.pack("<H", i) + b"h\1" for i in range(1, length)
  )
  return b"\x80\2}(K\0]q\1(" + numbers + b"e" + items + b"u."


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"\x80\2Nr\xff\xff\xff\x7f.", "numbers a value 2147483647"),
    (b"\x80\2T\xff\xff\xff\x7f.", "is refused"),
    (b"\x80\2\x8b\xff\xff\xff\x7f.", "is refused"),
    (b"\x80\4\x8e" + b"\xff" * 7 + b"\x7f.", "is refused"),
    (b"\x80\4\x95" + b"\xff" * 7 + b"\x7f.", "is refused"),
    (b"\x80\2\x82\1.", "operation EXT1"),
    (b"Ios\n.", "is refused"),
    (b"cnumpy\ndtype\nN}U\1aNs\x86b.", "is refused"),
    (POINTER, "operation SHORT_BINBYTES"),
    (nested_tuples(200_000), "more than 1000 objects"),
    (b"\x80\2(" + b"N0" * 10, "operation POP"),
    (b"\x80\2](" + b"N" * 2**20 + b"e.", "more than 1048576 operations"),
    (shared_list(5000), "has 25000000 edges, more than"),
  ],
)
def test_small_pickle_takes_neither_memory_nor_time(folder, content, message):
  with pytest.raises(ValueError, match=rf"ind\.citeseer\.graph .*{message}"):
    read(folder(graph=content))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"x": dump(make_values()[0]["x"])[:40]}, r"citeseer\.x is refused"),
    ({"x": b""}, "is refused"),
    ({"x": dump({"data": 1})}, "does not hold a sparse matrix"),
    ({"ally": dump([1, 2])}, "ally does not hold labels"),
    ({"graph": dump([[1]])}, "graph does not hold lists of nodes"),
    ({"graph": dump({0: ["one"]})}, "does not hold lists of nodes"),
    ({"ty": dump(np.eye(3, dtype=np.int32)[:2])}, "has 3 nodes, .* has 2"),
    ({"test__index": b"7\n8\nten\n"}, "line 3 is 'ten', not the number"),
    ({"test__index": b"7\n8\n8\n"}, "names 2 different nodes in 3 lines"),
    ({"test__index": b"8\n9\n10\n"}, "least number is 8; it must be 7"),
    (
      {"test__index": b"7\n8\n900000000\n"},
      "largest number is 900000000, so that 899999991 nodes are in no file",
    ),
    ({"test__index": b"7\n8\n" + b"9" * 400}, "line 3 is '9999.*not the"),
    ({"test__index": b"7\n" * 2**20}, "has more than 1048576 bytes"),
    ({"graph": dump({2**40: [0]})}, "is refused: it has the operation LONG1"),
    ({"graph": dump({0: [True]})}, "does not hold lists of nodes"),
    ({"allx": dump({"data": [1]})}, "does not hold a sparse matrix"),
  ],
)
def test_damaged_parts_are_named(folder, changes, message):
  with pytest.raises(ValueError, match=message):
    read(folder(**changes))


def test_edge_to_a_missing_node_is_named(folder):
  members = read(folder(graph=dump({0: [1], 2: [11]})))
  with pytest.raises(
    ValueError, match="edge 1 joins the nodes 2 and 11, but there are 11 nodes"
  ):
    nodes.make_dataset(members, where="here")


def test_too_few_nodes_for_validation_are_named(folder):
  with pytest.raises(ValueError, match="7 nodes, which are fewer than the 3"):
    planetoid.read(folder(), "citeseer")


def test_missing_part_is_named(folder):
  files = folder()
  (files / "ind.citeseer.ty").unlink()
  with pytest.raises(FileNotFoundError, match=r"ind\.citeseer\.ty"):
    read(files)


def test_tfds_prepares_and_reads_the_published_files(
  folder, tmp_path, monkeypatch
):
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  monkeypatch.setattr(planetoid, "NUM_VALID", NUM_VALID)
  manual = tmp_path / "tfds" / "downloads" / "manual"
  manual.mkdir(parents=True)
  options = {
    "train_per_class": None,
    "valid_fraction": 0.0,
    "data_dir": str(tmp_path / "tfds"),
  }
  with pytest.raises(FileNotFoundError, match=r"lacks ind\.citeseer\.x, .*Put"):
    loading.load(nodes.load, "tfds:planetoid/citeseer", **options)
  expected = nodes.make_dataset(read(folder()), where="published")
  for file in tmp_path.glob("ind.*"):
    file.rename(manual / file.name)
  for _ in range(2):  # Prepared, then as it is there.
    found = loading.load(nodes.load, "tfds:planetoid/citeseer", **options)
    for file in manual.glob("*"):
      file.unlink()
    assert found.fingerprint == "tfds:planetoid/citeseer/1.0.0"
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(
      graphs.dense(found.graph.features), graphs.dense(expected.graph.features)
    )
    np.testing.assert_array_equal(found.graph.senders, expected.graph.senders)
    assert {k: v.tolist() for k, v in found.splits.items()} == {
      k: v.tolist() for k, v in expected.splits.items()
    }
