import os
import re
import unicodedata

import pytest

from bitnet_jax.data.sources import class_folders


def make(root, *names):
  """Makes empty files, and folders where a name ends in a slash."""
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
      path.mkdir(exist_ok=True)
    else:
      path.touch()


def find(root):
  return class_folders.find(str(root), f"folder:{root}", (".png", ".jpg"))


def names_of(found, key="train"):
  split = found.splits[key]
  return list(zip(split.names(), split.labels.tolist(), strict=True))


def test_subfolders_are_classes_in_sorted_order(tmp_path):
  make(tmp_path, "b c/2.png", "b c/1.JPG", "a/x, y.png", "é/sub/1.png")
  found = find(tmp_path)
  assert found.classes == ("a", "b c", "é")
  assert names_of(found) == [
    ("a/x, y.png", 0),
    ("b c/1.JPG", 1),
    ("b c/2.png", 1),
    ("é/sub/1.png", 2),
  ]


@pytest.mark.parametrize("valid", ["valid", "val", "validation", "Valid"])
def test_splits_have_the_classes_of_train(tmp_path, valid):
  make(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png")
  make(tmp_path, f"{valid}/b/2.png", "test/c/3.png", "test/a/3.png")
  found = find(tmp_path)
  assert set(found.splits) == {"train", "valid", "test"}
  assert names_of(found, "valid") == [("b/2.png", 1)]
  assert names_of(found, "test") == [("a/3.png", 0), ("c/3.png", 2)]


def test_class_may_be_named_like_a_split(tmp_path):
  make(tmp_path, "train/1.png", "bus/1.png")
  assert find(tmp_path).classes == ("bus", "train")


def test_hidden_files_and_those_of_systems_are_skipped_in_silence(
  tmp_path, caplog
):
  make(tmp_path, "a/1.png", "b/1.png", "a/.2.png", "a/Thumbs.db", ".DS_Store")
  make(tmp_path, "__MACOSX/a/1.png", ".git/x/1.png", "b/@eaDir/1.png")
  found = find(tmp_path)
  assert names_of(found) == [("a/1.png", 0), ("b/1.png", 1)]
  assert not caplog.records


def test_other_files_are_left_out_with_one_warning(tmp_path, caplog):
  make(tmp_path, "a/1.png", "b/1.png", "b/notes.txt", "a/1.tiff", "cover.png")
  assert len(names_of(find(tmp_path))) == 2
  (record,) = caplog.records
  assert "3 other files are left out, such as" in record.getMessage()
  assert "1.tiff" in record.getMessage()


def test_links_are_followed_but_not_in_circles(tmp_path):
  make(tmp_path, "data/a/1.png", "real/2.png", "real/3.png")
  os.symlink(tmp_path / "real", tmp_path / "data" / "b")
  os.symlink(tmp_path / "data", tmp_path / "data" / "a" / "back")
  os.symlink(tmp_path / "real" / "2.png", tmp_path / "data" / "a" / "4.png")
  names = [name for name, _ in names_of(find(tmp_path / "data"))]
  assert names[:2] == ["a/1.png", "a/4.png"]
  assert [name for name in names if name.startswith("b/")] == [
    "b/2.png",
    "b/3.png",
  ]
  assert len(names) < 10


def test_two_spellings_of_a_class_in_splits_are_one(tmp_path):
  one, two = (unicodedata.normalize(f, "né") for f in ("NFC", "NFD"))
  make(tmp_path, f"train/{one}/1.png", "train/a/1.png", f"test/{two}/1.png")
  assert names_of(find(tmp_path), "test") == [(f"{one}/1.png", 1)]


def test_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
  make(tmp_path, "pets/a/1.png", "pets/b/1.png")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert class_folders.find("~/pets", "", (".png",)).classes == ("a", "b")


@pytest.mark.parametrize(
  ("files", "message"),
  [
    ([], "has no folders of classes; put the files of each class into a f"),
    (
      ["1.png", "2.png"],
      r"has files such as 1\.png, but no folders of classes; p",
    ),
    (["a/1.png"], "has one class, 'a', but a classifier needs two or more$"),
    (
      ["pets/a/1.png", "pets/b/1.png"],
      "has one class, 'pets', .*; if its folders are the classes, the source is"
      " folder:.*/pets$",
    ),
    (["a/1.png", "b/"], r"the folder .*/b has no file that ends in \.png, \.j"),
    (
      ["a/1.png", "b/1.tif"],
      r"only others such as 1\.tif; add some",
    ),
    (["Cat/1.png", "cat/1.png"], "'Cat' and 'cat' .* differ in case or spel"),
    (
      ["train/a/1.png", "train/b/1.png", "test/bb/1.png"],
      r"test has the class 'bb', which train lacks; train has a, b \(did you",
    ),
    (
      ["train/a/1.png", "train/b/1.png", "cars/1.png", "val/a/1.png"],
      "has train, val for splits, but cars as well; move the classes into the",
    ),
    (["test/a/1.png", "val/a/1.png"], "has test, val, but no folder train"),
    (
      ["train/a/1.png", "val/a/1.png", "valid/a/1.png"],
      "has both val and valid; keep one as valid",
    ),
    (
      ["train/1.png", "test/1.png"],
      r"train has files such as 1\.png, but no f",
    ),
  ],
)
def test_folders_that_are_not_as_they_should_be_are_an_error(
  tmp_path, files, message
):
  make(tmp_path, *files)
  with pytest.raises(ValueError, match=message) as caught:
    find(tmp_path)
  assert str(tmp_path) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_missing_folder_is_named_with_the_nearest(tmp_path):
  make(tmp_path, "pets/cats/1.png")
  with pytest.raises(FileNotFoundError) as caught:
    find(tmp_path / "petz" / "cats")
  expected = f"there is no folder {tmp_path}/petz (did you mean 'pets'?)"
  assert str(caught.value) == expected


def test_file_and_address_are_no_folder(tmp_path):
  make(tmp_path, "pets.zip")
  with pytest.raises(ValueError, match="is a file, not a folder; unpack it if"):
    find(tmp_path / "pets.zip")
  with pytest.raises(ValueError, match="is an address; copy it to a local"):
    class_folders.find("gs://a/b", "folder:gs://a/b", ())


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_that_are_not_utf8(tmp_path):
  make(tmp_path, "a/1.png", "b/1.png")
  (tmp_path / "a" / os.fsdecode(b"\xff.png")).touch()
  assert names_of(find(tmp_path))[1] == ("a/\N{REPLACEMENT CHARACTER}.png", 0)
  os.rename(tmp_path / "b", tmp_path / os.fsdecode(b"b\xff"))
  message = re.escape("the name of the class 'b\\udcff' is not UTF-8")
  with pytest.raises(ValueError, match=message):
    find(tmp_path)
