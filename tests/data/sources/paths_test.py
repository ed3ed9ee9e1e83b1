"""Paths and globs, and what is named where there is nothing."""

import re

import pytest

from bitnet_jax.data.sources import paths, textfiles


@pytest.fixture
def folder(tmp_path, monkeypatch):
  (tmp_path / "books [1]" / "sub").mkdir(parents=True)
  for name in ("b.txt", "a.txt", "c.md", ".hidden.txt", "sub/a.txt"):
    (tmp_path / "books [1]" / name).write_text(name)
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  ("glob", "names"),
  [
    ("books [1]/a.txt", ["a.txt"]),
    ("books [1]/*.txt", ["a.txt", "b.txt"]),
    ("books [1]/[bc]*", ["b.txt", "c.md"]),
    ("*/?.md", ["c.md"]),
    ("books [1]/**/*.txt", ["a.txt", "b.txt", "sub/a.txt"]),
    ("books [1]/**", ["a.txt", "b.txt", "c.md", "sub/a.txt"]),
  ],
)
def test_files_of_a_glob_are_sorted(folder, glob, names):
  expected = [folder / "books [1]" / name for name in names]
  assert paths.find_files(glob) == expected
  assert paths.find_files(f"{folder}/{glob}") == expected
  assert paths.is_there(glob)


@pytest.mark.parametrize(
  ("path", "message"),
  [
    ("boks/a.txt", "a.txt: there is no folder BASE/boks (did you mean 'books"),
    ("books [1]/A.TXT", "no file BASE/books [1]/A.TXT (did you mean 'a.txt'?)"),
    (
      "books [1]/qq",
      "books [1]/qq; BASE/books [1] holds a.txt, b.txt, c.md, s",
    ),
    (
      "books [1]/*.tsv",
      "no file matches BASE/books [1]/*.tsv; BASE/books [1] h",
    ),
    ("no/*.tsv", "there is no file BASE/no/*.tsv: there is no folder BASE/no"),
    (
      "books [1]",
      "BASE/books [1] is a folder, not a file; BASE/books [1] hold",
    ),
    ("books [1]/s*", "no file matches BASE/books [1]/s*"),
  ],
)
def test_missing_files_are_named_with_the_nearest(folder, path, message):
  message = re.escape(message.replace("BASE", str(folder)))
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    paths.find_files(path)
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    textfiles.find_splits(path, {})
  assert not paths.is_there(path)
