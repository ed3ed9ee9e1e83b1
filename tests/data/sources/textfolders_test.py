"""Folders of texts, and several files as one table."""

import gzip
import re

import pytest

from bitnet_jax.data.splits import Cuts
from bitnet_jax.data.views import documents, labeled_texts, pairs

TABLE = dict(columns=("text",))


def make(root, **texts):
  """Writes files, by path with `__` for slashes and `_` for the dots."""
  for name, content in texts.items():
    path = root / name.replace("__", "/").replace("_", ".")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)


def texts_of(source, **options):
  found = documents.load(f"file:{source}", **options)
  return {key: split.texts for key, split in found.splits.items()}


def test_each_file_of_a_folder_is_a_document(tmp_path, caplog):
  make(tmp_path, b_txt="B\n", a_md="A\r\n", c_png=b"\x89", _hidden="h")
  make(tmp_path, sub__c_txt_gz=gzip.compress("Ç\n".encode()))
  assert texts_of(tmp_path) == {"train": ["A\n", "B\n", "Ç\n"]}
  assert "1 files that do not end in .txt, " in caplog.text
  assert caplog.messages[0].endswith("are left out: c.png")
  assert texts_of(f"{tmp_path}/*.txt") == {"train": ["B\n"]}
  assert texts_of(f"{tmp_path}/**/*.txt*") == {"train": ["B\n", "Ç\n"]}
  assert texts_of(f"{tmp_path}/[ab]*") == {"train": ["A\n", "B\n"]}


def test_documents_are_cut_in_each_file(tmp_path):
  make(tmp_path, a_txt="one\n\ntwo\n", b_txt="three\n")
  for source in (tmp_path, f"{tmp_path}/*.txt", f"{tmp_path}/*"):
    found = texts_of(source, documents="paragraphs")
    assert found == {"train": ["one", "two", "three"]}
  message = re.escape(f"{tmp_path}/a.txt, line 2: text is empty")
  with pytest.raises(ValueError, match=f"{message}; data.skip_empty=True"):
    texts_of(tmp_path, documents="lines")


def test_empty_file_among_others_is_an_error_or_left_out(tmp_path):
  make(tmp_path, a_txt="", b_txt="b\n")
  message = r"a\.txt, line 1: text is empty; data\.skip_empty=True leaves such"
  with pytest.raises(ValueError, match=message):
    texts_of(tmp_path)
  assert texts_of(tmp_path, skip_empty=True) == {"train": ["b\n"]}


def test_folders_of_splits_are_splits(tmp_path, caplog):
  make(tmp_path, train__a_txt="a", dev__b_txt="b", README_md="r")
  expected = {"train": ["a"], "valid": ["b"]}
  assert texts_of(tmp_path) == expected
  assert "1 files beside them are left out: README.md" in caplog.text
  assert texts_of(f"{tmp_path}/{{split}}") == expected
  assert texts_of(f"{tmp_path}/{{split}}/*.txt") == expected
  cuts = Cuts(split_names=(("test", "dev"),))
  assert texts_of(tmp_path, cuts=cuts) == expected | {"test": ["b"]}


def test_documents_of_a_folder_are_cut_into_splits(tmp_path):
  make(tmp_path, **{f"n{i}_txt": f"text {i}" for i in range(10)})
  found = texts_of(tmp_path, cuts=Cuts(valid_fraction=0.2))
  assert [len(texts) for texts in found.values()] == [8, 2]


@pytest.mark.parametrize(
  ("files", "source", "message"),
  [
    ({}, "boks", r"no folder .*/boks \(did you mean 'books'\?\)"),
    (dict(a_png=b"\x89"), "books", r"no files that end in .*, but a\.png"),
    (dict(a_csv="text\na\n"), "books", r"; file:.*/books/\*\.csv reads tables"),
    (
      dict(a_csv="text\na\n"),
      "books/*",
      r"matches tables, .*: .*/books/\*\.csv",
    ),
    (dict(a_txt=b"\xff"), "books", r"a\.txt, line 1 is not UTF-8"),
    (dict(a_bin=b"\xff"), "books/*", r"a\.bin, line 1 is not UTF-8"),
  ],
)
def test_folder_without_texts_is_an_error(tmp_path, files, source, message):
  (tmp_path / "books").mkdir()
  make(tmp_path / "books", **files)
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    texts_of(tmp_path / source)


def test_folders_are_the_classes_of_their_texts(tmp_path, caplog):
  for split in ("train", "test"):
    for name in ("pos", "neg"):
      for i in range(2):
        make(tmp_path, **{f"{split}__{name}__{i}_txt": f"{split} {name} {i}\n"})
  make(tmp_path, train__urls_txt="u", README="r")
  corpus = labeled_texts.load(f"file:{tmp_path}")
  assert corpus.class_names == ("neg", "pos")
  train = corpus.splits["train"]
  assert train.texts[0][:2] == ["train neg 0", "train neg 1"]
  assert train.labels.tolist() == [0, 0, 1, 1]
  assert len(corpus.splits["test"]) == 4
  (tmp_path / "a.csv").write_text(
    "text,label\n"
    + "".join(
      f"{text},{corpus.class_names[label]}\n"
      for text, label in zip(train.texts[0], train.labels, strict=True)
    )
  )
  single = labeled_texts.load(f"file:{tmp_path}/train")
  table = labeled_texts.load(f"file:{tmp_path}/a.csv", **TABLE)
  assert single.fingerprint == table.fingerprint
  caplog.clear()
  make(tmp_path, train__unsup__0_txt="x", train__unsup__1_txt="y")
  assert labeled_texts.load(f"file:{tmp_path}").num_classes == 3
  assert "test has no texts of the classes unsup" in caplog.text


@pytest.mark.parametrize(
  ("files", "source", "message"),
  [
    (dict(a__1_txt="x"), "", "has one class, 'a', but a classifier needs two"),
    (dict(a__1_txt="x", A__1_txt="x"), "", "classes 'A' and 'a' .* in case"),
    (dict(a__1_txt="x", b__1_txt=" "), "", "file b/1.txt: text is empty"),
    (dict(a__1_txt="x", b__1_png="x"), "", r"no file that ends in \.txt, "),
    (dict(a_txt="x"), "", "no folders of classes; .* such as cats/1.txt"),
    (dict(a__1_txt="x"), "{split}", "takes neither split_names nor {split}"),
    (dict(a__1_txt="x"), "a/1.txt", "unknown source of labeled texts .*FOLDER"),
  ],
)
def test_wrong_folders_of_classes_are_named(tmp_path, files, source, message):
  make(tmp_path, **files)
  with pytest.raises(ValueError, match=message):
    labeled_texts.load(f"file:{tmp_path}/{source}")


@pytest.mark.parametrize(
  ("end", "header", "row"),
  [
    ("csv", "text,label\n", "{},{}\n"),
    ("tsv", "text\tlabel\n", "{}\t{}\n"),
    ("jsonl", "", '{{"text": "{}", "label": "{}"}}\n'),
  ],
)
def test_files_of_a_glob_are_one_table(tmp_path, end, header, row):
  rows = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]
  for i in (0, 1):
    lines = [row.format(*r) for r in rows[2 * i : 2 * i + 2]]
    make(tmp_path, **{f"train-{i}_{end}": header + "".join(lines)})
  make(tmp_path, **{f"test-0_{end}": header + row.format("e", "x")})
  source = f"file:{tmp_path}/{{split}}-*.{end}"
  corpus = labeled_texts.load(source, **TABLE)
  assert corpus.splits["train"].texts[0] == ["a", "b", "c", "d"]
  assert corpus.splits["train"].labels.tolist() == [0, 1, 0, 1]
  assert corpus.splits["test"].texts[0] == ["e"]
  found = pairs.load(source, languages=("text", "label")).splits["train"]
  assert found.targets == ["x", "y", "x", "y"]
  make(tmp_path, **{f"train-1_{end}": header + row.format("e", "")})
  with pytest.raises(
    ValueError, match=rf"train-1\.{end}, line .*: label is ''"
  ):
    labeled_texts.load(source, **TABLE)


def test_files_of_one_table_have_the_same_columns(tmp_path):
  make(tmp_path, a_csv="text,label\na,x\n", b_csv="label,text\nx,b\n")
  corpus = labeled_texts.load(f"file:{tmp_path}/*.csv", **TABLE)
  assert corpus.splits["train"].texts[0] == ["a", "b"]
  make(tmp_path, c_csv="txt,label\na,x\n")
  message = r"c\.csv has the columns txt, label, but .*a\.csv has text, label"
  with pytest.raises(ValueError, match=message):
    labeled_texts.load(f"file:{tmp_path}/*.csv", **TABLE)
