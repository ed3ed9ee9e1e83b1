import hashlib
import zipfile

import numpy as np
import pytest

from bitnet_jax.data.sources import npz
from bitnet_jax.data.views import arrays
from tests.data import loading


def good(**changes):
  """Members of a small good file; None leaves one out."""
  rng = np.random.default_rng(0)
  members = {
    "x_train": rng.integers(256, size=(20, 4, 5), dtype=np.uint8),
    "y_train": np.arange(20) % 3,
    "x_test": rng.integers(256, size=(6, 4, 5), dtype=np.uint8),
    "y_test": np.arange(6) % 3,
  } | changes
  return {k: v for k, v in members.items() if v is not None}


def load(path, **options):
  options = dict(valid_fraction=0.0, test_fraction=0.0) | options
  return loading.load(arrays.load, f"file:{path}", **options)


@pytest.fixture
def file(tmp_path):
  return tmp_path / "set.npz"


def test_images_without_channels_get_one(file):
  members = good()
  np.savez(file, **members)
  dataset = load(file)
  assert set(dataset.splits) == {"train", "test"}
  train = dataset.splits["train"]
  assert train.inputs.dtype == np.uint8
  assert train.labels.dtype == np.int32
  np.testing.assert_array_equal(train.inputs, members["x_train"][..., None])
  np.testing.assert_array_equal(train.labels, members["y_train"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7,), (4, 4, 3)])
def test_floating_inputs_become_float32(file, shape, dtype):
  x = np.random.default_rng(0).normal(size=(6, *shape)).astype(dtype)
  np.savez(
    file,
    **good(x_train=x, y_train=np.arange(6) % 3, x_test=x, y_test=[0] * 6),
  )
  inputs = load(file).splits["train"].inputs
  assert inputs.dtype == np.float32
  np.testing.assert_array_equal(inputs, x.astype(np.float32))


def test_validation_of_the_file_is_used_as_it_is(file):
  members = good(x_valid=np.ones((2, 4, 5), np.uint8), y_valid=[2, 1])
  np.savez(file, **members)
  dataset = load(file, valid_fraction=0.5)
  assert len(dataset.splits["train"].labels) == 20
  assert dataset.splits["valid"].labels.tolist() == [2, 1]


def test_missing_validation_is_cut_from_train(file):
  np.savez(file, **good())
  dataset = load(file, valid_fraction=0.2, test_fraction=0.5)
  sizes = {k: len(v.labels) for k, v in dataset.splits.items()}
  assert sizes == {"train": 16, "valid": 4, "test": 6}


def test_packed_images_are_decoded_and_classes_counted_by_their_names(file):
  residuals = np.zeros((3, 4, 2, 2), np.uint8)
  residuals[1] = 1
  np.savez(
    file,
    x_train_res=residuals,
    y_train=[0, 1, 0, 1],
    x_test_res=residuals,
    y_test=[0, 1, 2, 2],
    label_names=["a", "b", "c"],
  )
  dataset = load(file)
  assert dataset.num_classes == 3
  assert dataset.class_names == ("a", "b", "c")
  # Names that do not fit the classes are no names.
  assert load(file, num_classes=4).class_names == ()
  inputs = dataset.splits["test"].inputs
  assert inputs.shape == (4, 2, 2, 3)
  np.testing.assert_array_equal(inputs[0, :, :, 0], [[1, 2], [2, 3]])


@pytest.mark.parametrize(("explicit", "expected"), [(None, 3), (5, 5)])
def test_classes_are_counted_by_training_labels_unless_given(
  file, explicit, expected
):
  np.savez(file, **good())
  assert load(file, num_classes=explicit).num_classes == expected


def test_fingerprint_is_the_sum_of_the_bytes(file, tmp_path):
  np.savez(file, **good())
  expected = hashlib.sha256(file.read_bytes()).hexdigest()
  assert load(file).fingerprint == f"sha256:{expected}"
  moved = file.rename(tmp_path / "elsewhere.NPZ")
  assert load(moved).fingerprint == f"sha256:{expected}"


def test_tilde_is_the_home_folder(file, tmp_path, monkeypatch):
  np.savez(file, **good())
  monkeypatch.setenv("HOME", str(tmp_path))
  assert load("~/set.npz").num_classes == 3


def test_each_member_is_read_once(file, monkeypatch):
  np.savez(file, **good())
  read = []
  access = zipfile.ZipFile.open

  def count(archive, info):
    read.append(info.filename.removesuffix(".npy"))
    return access(archive, info)

  monkeypatch.setattr(zipfile.ZipFile, "open", count)
  load(file)
  assert sorted(read) == ["x_test", "x_train", "y_test", "y_train"]


def test_missing_file_is_named_by_its_absolute_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(FileNotFoundError) as caught:
    load("data/none.npz")
  assert str(tmp_path / "data" / "none.npz") in str(caught.value)


@pytest.mark.parametrize("name", ["set.npy", "set.tsv", "set", "set.npz.gz"])
def test_unknown_ending_is_an_error(name):
  with pytest.raises(ValueError, match=rf"file:{name}'.*file:PATH\.npz"):
    load(name)


@pytest.mark.parametrize("content", [b"", b"label,pixel\n", b"PK\x03\x04junk"])
def test_file_that_is_not_an_npz_is_an_error(file, content):
  file.write_bytes(content)
  with pytest.raises(ValueError, match=r"set\.npz is not a complete \.npz"):
    load(file)


def test_single_array_is_an_error(file):
  with file.open("wb") as stream:
    np.save(stream, np.zeros(3))
  with pytest.raises(ValueError, match=r"not a \.npz file but a single array"):
    load(file)


def test_truncated_file_is_an_error(file):
  np.savez(file, **good())
  file.write_bytes(file.read_bytes()[:-100])
  with pytest.raises(ValueError, match=r"set\.npz is not a complete"):
    load(file)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_member_is_named(file, save):
  save(file, **good())
  content = bytearray(file.read_bytes())
  with zipfile.ZipFile(file) as archive:
    start = archive.getinfo("x_test.npy").header_offset
  content[start + 200 : start + 220] = b"\0" * 20
  file.write_bytes(content)
  with pytest.raises(ValueError, match=r"set\.npz: cannot read x_test"):
    load(file)


def test_member_that_is_not_an_array_is_named(file):
  np.savez(file, **good(y_test=None))
  with zipfile.ZipFile(file, "a") as archive:
    archive.writestr("y_test", "0 1 2")
  with pytest.raises(ValueError, match="y_test is not an array"):
    load(file)


IMAGES = np.zeros((20, 4, 5), np.uint8)
NAN = np.zeros((20, 4, 5), np.float32)
NAN[13, 2, 1] = np.nan
NAN[17] = np.inf
HUGE = np.zeros((20, 4, 5))
HUGE[3] = 1e300  # finite, but not in float32


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    # Missing members.
    (
      dict(y_test=None),
      "lacks y_test: it holds x_train, y_train, x_test, needed are x_train",
    ),
    (dict(x_train=None, x_test=None), "lacks x_train_res, x_test_res: it hol"),
    (dict(x_valid=IMAGES), "lacks y_valid"),
    (dict(y_valid=[1]), "lacks x_valid"),
    # Shapes.
    (
      dict(x_train=np.zeros(20, np.uint8)),
      r"x_train must be \[n, height, width\], .* its shape is \[20\]",
    ),
    (dict(x_test=np.zeros((6, 1, 4, 5, 1), np.uint8)), r"x_test must be \[n, "),
    (dict(x_test=np.zeros((6, 0, 5), np.uint8)), "x_test must be .* not empty"),
    (dict(y_train=np.zeros((20, 1), int)), r"y_train must be \[n\].*\[20, 1\]"),
    (
      dict(x_train=IMAGES[:19]),
      "x_train has 19 examples, y_train has 20",
    ),
    (
      dict(x_test=np.zeros((6, 4, 4), np.uint8)),
      r"x_test has .* shape \[4, 4, 1\] .*x_train .* \[4, 5, 1\]",
    ),
    (
      dict(x_test=np.zeros((6, 4, 5), np.float32)),
      r"x_test has .* \(float32\), x_train .* \(uint8\)",
    ),
    (dict(label_names=[["a"]]), r"label_names must be .* \[1, 1\]"),
    # Dtypes.
    (dict(x_train=IMAGES.astype(bool)), "x_train is bool, it must be uint8"),
    (dict(x_train=IMAGES.astype(complex)), "x_train is complex128, it must"),
    (dict(x_test=IMAGES.astype(np.int64)), "x_test is int64, it must be uint8"),
    (dict(x_test=IMAGES.astype(object)), "cannot read x_test: Object arrays"),
    (dict(y_test=np.zeros(6)), "y_test is float64, labels must be integers"),
    (dict(y_test=np.zeros(6, bool)), "y_test is bool, labels must be integers"),
    # Values.
    (dict(x_train=NAN), "x_train has a NaN or infinite value .* example 13"),
    (dict(x_train=HUGE), "x_train has a NaN or infinite value .* example 3"),
    (
      dict(y_test=[0, 1, 2, 0, 3, 1]),
      r"y_test holds the label 3 at example 4, .* 0\.\.2 \(num_classes=3\)",
    ),
    (
      dict(y_train=np.arange(20) % 3 - 1),
      r"y_train holds the label -1 at example 0, .* 0\.\.1 ",
    ),
    (
      dict(label_names=["a", "b"]),
      r"y_train holds the label 2 at example 2, .* 0\.\.1 ",
    ),
    (
      dict(y_test=np.array([0, 1, 2, 0, 2**32, 1])),
      "y_test holds the label 4294967296 at example 4",
    ),
    (
      dict(y_train=np.full(20, 2**63, np.uint64)),
      "y_train holds the label 9223372036854775808 at example 0",
    ),
    # Empty splits.
    (
      dict(x_test=IMAGES[:0], y_test=np.zeros(0, int)),
      "x_test must be .* and not empty, its shape is",
    ),
    (
      dict(x_valid=IMAGES[:0], y_valid=np.zeros(0, int)),
      "x_valid must be .* and not empty, its shape is",
    ),
  ],
)
def test_bad_member_is_named_with_the_file(file, changes, message):
  np.savez(file, **good(**changes))
  with pytest.raises(ValueError, match=rf"set\.npz.*{message}"):
    load(file)


@pytest.mark.parametrize(
  ("residuals", "message"),
  [
    (np.zeros((4, 3, 2, 2), np.uint8), r"must be \[3, n, height, width\]"),
    (np.zeros((3, 4, 2), np.uint8), r"must be \[3, n, height, width\]"),
    (np.zeros((3, 0, 2, 2), np.uint8), "not empty"),
    (np.zeros((3, 4, 2, 2), np.float32), "is float32, it must be uint8"),
  ],
)
def test_bad_packed_member_is_named(file, residuals, message):
  np.savez(
    file,
    x_train_res=residuals,
    y_train=[0] * 4,
    x_test_res=residuals,
    y_test=[0] * 4,
  )
  with pytest.raises(ValueError, match=rf"set\.npz: x_train_res .*{message}"):
    load(file)


def test_label_beyond_the_given_number_of_classes_is_an_error(file):
  np.savez(file, **good())
  message = r"y_train holds the label 2 at example 2.*\(num_classes=2\)"
  with pytest.raises(ValueError, match=message):
    load(file, num_classes=2)


def header(text, version=b"\1\0"):
  """The beginning of a .npy file that says something."""
  data = text.encode("latin1")
  return b"\x93NUMPY" + version + len(data).to_bytes(2, "little") + data


def describing(shape, descr="'|u1'"):
  text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
  return header(text)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (header("{'descr': '|u1', \0}"), ""),
    (header("{'descr"), ""),
    (header("(" * 5000), ""),
    (header("-" * 9000 + "1"), ""),
    (header("{'descr': '|u1', 'fortran_order': 0, 'shape': 3}"), ""),
    (header("{}", version=b"\3\0"), r"its format is \(3, 0\)"),
    (describing("(20000000000,)"), r"is uint8 \[20000000000\], but has 0"),
    (describing("(20000000000,)", "'|S0'"), "not numbers"),
    (describing("(-1, -1)") + b"1", "but has 1 bytes"),
    (describing(f"({'9' * 400},)"), "is uint8"),
    (describing(f"({'9' * 5000},)"), ""),
    (describing("(2,)") + b"123", r"is uint8 \[2\], but has 3 bytes"),
    (describing("(1,)", "'<M8[ns]'") + b"1" * 8, "not numbers"),
    (describing("(1,)", "[('a', '|u1')]") + b"1", "not numbers"),
    (describing("(1,)", "('|u1', (1,))") + b"1", ""),
  ],
)
def test_header_that_lies_is_named(file, content, message):
  np.savez(file, **good(y_test=None))
  with zipfile.ZipFile(file, "a") as archive:
    archive.writestr("y_test.npy", content)
  message = rf"set\.npz: cannot read y_test.*{message}"
  with pytest.raises(ValueError, match=message):
    load(file)


def test_file_that_grows_too_much_is_refused_before_it_is_unpacked(
  file, monkeypatch
):
  monkeypatch.setattr(npz, "ALWAYS_UNPACKED", 2**16)
  np.savez_compressed(file, **good(x_train=np.zeros((20, 256, 256), np.uint8)))
  with pytest.raises(ValueError, match=r"set\.npz .* expands to more than"):
    load(file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_member_that_is_there_twice_is_named(file):
  np.savez(file, **good())
  with zipfile.ZipFile(file, "a") as archive:
    archive.writestr("y_test", archive.read("y_test.npy"))
  with pytest.raises(ValueError, match="appears twice"):
    load(file)


def test_member_that_claims_fewer_bytes_than_it_becomes_is_cut(file):
  """Otherwise a few bytes of LZMA become gigabytes."""
  with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
    archive.writestr("y_test.npy", describing(f"({2**24},)") + bytes(2**24))
  content = file.read_bytes()
  large = (2**24 + len(describing(f"({2**24},)"))).to_bytes(4, "little")
  assert content.count(large) == 2
  file.write_bytes(content.replace(large, (200).to_bytes(4, "little")))
  with file.open("rb") as stream:
    archive = npz.Archive(file, stream)
    with pytest.raises(ValueError, match="cannot read y_test"):
      archive["y_test"]


def test_archive_with_a_password_is_an_error(file):
  np.savez(file, **good())
  content = bytearray(file.read_bytes())
  for place in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\1\2") + 8):
    content[place] |= 1
  file.write_bytes(content)
  with pytest.raises(ValueError, match=r"cannot read x_train.*encrypted"):
    load(file)


def test_labels_do_not_make_millions_of_classes(file):
  np.savez(file, **good(y_train=np.full(20, 900_000_000)))
  with pytest.raises(ValueError, match=r"label 900000000 .*0\.\.1048575"):
    load(file)
