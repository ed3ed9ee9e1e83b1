import gzip

import pytest

from bitnet_jax.data.views import pairs
from tests.data import loading


def load(source, **options):
  return loading.load(pairs.load, source, **options)


LANGUAGES = dict(languages=("en", "de"))


def write(folder, **files):
  for name, lines in files.items():
    content = "".join(line + "\n" for line in lines).encode()
    name = name.replace("__", ".") + ".gz"
    (folder / name).write_bytes(gzip.compress(content))
  return f"file:{folder}/{{split}}.{{lang}}.gz"


def test_line_k_of_one_file_belongs_to_line_k_of_the_other(tmp_path):
  source = write(
    tmp_path,
    train__en=["a", "b\u2028c"],
    train__de=["A", "B"],
    val__en=["d"],
    val__de=["D"],
    test_2016__en=["e"],
    test_2016__de=["E"],
  )
  corpus = load(source, split_names=(("test", "test_2016"),), **LANGUAGES)
  pairs = {
    key: (split.sources, split.targets) for key, split in corpus.splits.items()
  }
  assert pairs == {
    "train": (["a", "b\u2028c"], ["A", "B"]),
    "valid": (["d"], ["D"]),
    "test": (["e"], ["E"]),
  }
  back = load(source, languages=("de", "en"))
  assert back.splits["train"].sources == ["A", "B"]
  assert back.fingerprint != corpus.fingerprint


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_pairs_can_be_columns_and_are_cut_together(tmp_path, kind):
  if kind == "tsv":
    lines = ["en\tde", *(f"a{i}\tA{i}" for i in range(10))]
  else:
    lines = [f'{{"de": "A{i}", "en": "a{i}"}}' for i in range(10)]
  (tmp_path / f"a.{kind}").write_text("\n".join(lines))
  corpus = load(
    f"file:{tmp_path}/a.{kind}",
    valid_fraction=0.2,
    test_fraction=0.2,
    **LANGUAGES,
  )
  sizes = {key: len(split) for key, split in corpus.splits.items()}
  assert sizes == {"train": 6, "valid": 2, "test": 2}
  for split in corpus.splits.values():
    assert [text.upper() for text in split.sources] == split.targets


def test_files_of_different_lengths_are_an_error(tmp_path):
  source = write(tmp_path, train__en=["a", "b"], train__de=["A"])
  message = r"train\.en\.gz has 2 lines, but .*train\.de\.gz has 1"
  with pytest.raises(ValueError, match=message):
    load(source, **LANGUAGES)


def test_empty_line_is_an_error(tmp_path):
  source = write(tmp_path, train__en=["a", "b"], train__de=["A", " "])
  with pytest.raises(ValueError, match=r"train\.de\.gz, line 2: de is empty"):
    load(source, **LANGUAGES)


@pytest.mark.parametrize("lacking", ["train__de", "val__en", "val__de"])
def test_file_of_one_language_is_an_error(tmp_path, lacking):
  files = ("train__en", "train__de", "val__en", "val__de")
  source = write(tmp_path, **{k: ["a"] for k in files if k != lacking})
  with pytest.raises(FileNotFoundError, match=r"no file|one of the languages"):
    load(source, **LANGUAGES)


@pytest.mark.parametrize(
  ("source", "options", "message"),
  [
    ("embedded:pydoc", LANGUAGES, "unknown source of pairs"),
    ("file:a.{lang}", {}, r"needs two languages, read and written, not \[\]"),
    ("file:a.{lang}", dict(languages=("en",)), r"not \['en'\]"),
    ("file:a.txt", LANGUAGES, r"\{lang\}.*PATH\.tsv\[.*PATH\.jsonl\["),
    ("file:a.{lang}", LANGUAGES | dict(test_fraction=-1), "test_fraction"),
  ],
)
def test_impossible_arguments_are_errors(source, options, message):
  with pytest.raises(ValueError, match=message):
    load(source, **options)


def test_files_without_a_line_are_an_error(tmp_path):
  source = write(tmp_path, train__en=[], train__de=[])
  with pytest.raises(ValueError, match="train has no example"):
    load(source, **LANGUAGES)


def test_published_set_has_its_published_sizes(data_dir):
  corpus = load(
    f"file:{data_dir}/multi30k/{{split}}.{{lang}}.gz",
    split_names=(("test", "test_2016_flickr"),),
    **LANGUAGES,
  )
  sizes = {key: len(split) for key, split in corpus.splits.items()}
  assert sizes == {"train": 29000, "valid": 1014, "test": 1000}
