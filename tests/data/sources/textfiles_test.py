import gzip
import lzma

import pytest

from bitnet_jax.data.sources import textfiles


def write(path, content):
  packers = {".gz": gzip.compress, ".xz": lzma.compress}
  path.write_bytes(packers.get(path.suffix, bytes)(content))
  return path


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
def test_files_are_read_packed_or_not(tmp_path, ending):
  content = "é \u2028\x85 b\r\n\n c\rd\n"
  file = write(tmp_path / f"a.txt{ending}", b"\xef\xbb\xbf" + content.encode())
  assert textfiles.read(file) == "é \u2028\x85 b\n\n c\rd\n"
  assert textfiles.lines(file) == ["é \u2028\x85 b", "", " c\rd"]


@pytest.mark.parametrize(
  ("content", "lines"),
  [("", []), ("\n", [""]), ("a", ["a"]), ("a\n\n", ["a", ""])],
)
def test_last_line_needs_no_end(tmp_path, content, lines):
  assert textfiles.lines(write(tmp_path / "a", content.encode())) == lines


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_damaged_file_is_an_error(tmp_path, ending):
  file = write(tmp_path / f"a.txt{ending}", b"some text" * 1000)
  file.write_bytes(file.read_bytes()[:-9])
  with pytest.raises(ValueError, match=f"cannot read .*/a.txt{ending}: "):
    textfiles.read(file)
  file.write_bytes(b"some text")
  with pytest.raises(ValueError, match=f"cannot read .*/a.txt{ending}: "):
    textfiles.read(file)


def test_what_is_not_utf8_is_an_error_with_its_line(tmp_path):
  file = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\n\xc3\xa9\ncaf\xe9\n")
  with pytest.raises(ValueError, match=r"/a\.txt, line 3 is not UTF-8"):
    textfiles.read(file)


def test_file_that_is_not_there_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match=f"no file {tmp_path}/a.txt"):
    textfiles.find(f"{tmp_path}/a.txt")
  with pytest.raises(FileNotFoundError, match="no file"):
    textfiles.find_splits(f"{tmp_path}/a.txt", {})


@pytest.mark.parametrize("name", ["valid", "val", "validation", "dev"])
def test_splits_are_found_by_their_usual_names(tmp_path, name):
  for split in ("train", name, "test", "other"):
    write(tmp_path / f"{split}.txt", b"a")
  found = textfiles.find_splits(f"{tmp_path}/{{split}}.txt", {})
  assert found == {
    "train": f"{tmp_path}/train.txt",
    "valid": f"{tmp_path}/{name}.txt",
    "test": f"{tmp_path}/test.txt",
  }


def test_splits_are_found_by_the_names_they_are_given(tmp_path):
  pattern = f"{tmp_path}/{{split}}.txt"
  for split in ("train", "val", "dev", "test_2016"):
    write(tmp_path / f"{split}.txt", b"a")
  with pytest.raises(ValueError, match=r"valid can be .*val\.txt or .*dev\.t"):
    textfiles.find_splits(pattern, {})
  names = {"valid": "dev", "test": "test_2016"}
  found = textfiles.find_splits(pattern, names)
  assert found["valid"] == f"{tmp_path}/dev.txt"
  assert found["test"] == f"{tmp_path}/test_2016.txt"
  with pytest.raises(FileNotFoundError, match=r"no file .*/test_2017\.txt"):
    textfiles.find_splits(pattern, names | {"test": "test_2017"})
  with pytest.raises(FileNotFoundError, match=r"no file .*/learn\.txt"):
    textfiles.find_splits(pattern, names | {"train": "learn"})
  with pytest.raises(ValueError, match=r"split_names is 'dev', .*'valid'"):
    textfiles.find_splits(pattern, {"dev": "dev"})
  with pytest.raises(ValueError, match=r"needs \{split\} in the path"):
    textfiles.find_splits(f"{tmp_path}/train.txt", names)


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_file_that_grows_too_much_is_refused(tmp_path, monkeypatch, ending):
  monkeypatch.setattr(textfiles, "ALWAYS_UNPACKED", 10_000)
  usual = b" ".join(b"%d" % i for i in range(20_000))
  assert len(textfiles.read(write(tmp_path / f"a{ending}", usual))) > 100_000
  file = write(tmp_path / f"a.txt{ending}", bytes(10_001))
  assert textfiles.read(write(tmp_path / f"b{ending}", bytes(10_000)))
  file = write(tmp_path / f"a.txt{ending}", bytes(1_000_000))
  with pytest.raises(
    ValueError, match=rf"a\.txt{ending}: .* expands to more than"
  ):
    textfiles.read(file)


def test_larger_file_than_any_is_refused_before_it_is_read(tmp_path):
  file = tmp_path / "a.txt"
  with file.open("wb") as stream:
    stream.truncate(2**40)
  with pytest.raises(ValueError, match=r"a\.txt.* has more than"):
    textfiles.read(file)
