import gzip
import json
from pydoc_data import topics

import pytest

from bitnet_jax.data.views import documents
from tests.data import loading


def load(source, **options):
  return loading.load(documents.load, source, **options)


def write(path, content):
  pack = gzip.compress if path.suffix == ".gz" else bytes
  path.write_bytes(pack(content.encode()))
  return f"file:{path}"


def texts(corpus):
  return {key: split.texts for key, split in corpus.splits.items()}


def test_pydoc_is_the_help_of_python():
  corpus = load("embedded:pydoc")
  (train,) = corpus.splits.values()
  assert train.texts == [topics.topics[key] for key in sorted(topics.topics)]
  assert train.num_bytes > 400_000


def test_documents_are_cut_by_fraction_and_seed():
  cuts = dict(valid_fraction=0.1, test_fraction=0.2)
  whole = load("embedded:pydoc")
  corpora = [
    load("embedded:pydoc", split_seed=seed, **cuts) for seed in (0, 0, 1)
  ]
  first, again, other = map(texts, corpora)
  total = len(topics.topics)
  sizes = {key: len(split) for key, split in first.items()}
  test = round(0.2 * total)
  valid = round(0.1 * (total - test))
  assert sizes == {"train": total - test - valid, "test": test, "valid": valid}
  joined = first["train"] + first["valid"] + first["test"]
  assert sorted(joined) == sorted(whole.splits["train"].texts)
  assert first == again != other
  prints = [corpus.fingerprint for corpus in (*corpora, whole)]
  assert prints[0] == prints[1]
  assert len(set(prints)) == 3


def test_fingerprint_is_of_the_content(tmp_path):
  (tmp_path / "a").mkdir()
  by_line = dict(documents="lines")
  plain = load(write(tmp_path / "x.txt", "a\nb\n"), **by_line)
  source = write(tmp_path / "a" / "y.txt.gz", "a\r\nb")
  assert load(source, **by_line).fingerprint == plain.fingerprint
  other = load(write(tmp_path / "x.txt", "a\nc\n"), **by_line)
  assert plain.fingerprint != other.fingerprint


CONTENT = "one\n two\n\n\t\nthree<e>\n\n\nfour\n<e>five\n"


@pytest.mark.parametrize(
  ("documents", "expected"),
  [
    ("lines", ["one", " two", "three<e>", "four", "<e>five"]),
    ("paragraphs", ["one\n two", "three<e>", "four\n<e>five"]),
    ("marked", ["one\n two\n\n\t\nthree", "\n\nfour", "five"]),
    ("whole", [CONTENT]),
  ],
)
def test_text_files_hold_documents_of_four_kinds(tmp_path, documents, expected):
  corpus = load(
    write(tmp_path / "a.txt", CONTENT),
    documents=documents,
    marker="<e>",
    skip_empty=True,
  )
  assert corpus.splits["train"].texts == expected


PLAY = "First Citizen:\nSpeak.\n\nAll:\nSpeak, speak.\n\n"


def test_text_file_is_one_document_unless_asked_for(tmp_path):
  source = write(tmp_path / "train.txt", PLAY)
  write(tmp_path / "dev.txt", "c\n")
  pattern = source.replace("train.txt", "{split}.txt")
  corpus = load(pattern)
  assert texts(corpus) == {"train": [PLAY], "valid": ["c\n"]}
  assert corpus == load(pattern, documents="whole")
  with pytest.raises(ValueError, match=r"train\.txt, line 3: text is empty"):
    load(pattern, documents="lines")


def test_lines_are_documents_if_asked_for(tmp_path):
  for end in ("", "\n", "\n\n\n"):
    source = write(tmp_path / "train.txt", f" a \nb{end}")
    corpus = load(source, documents="lines")
    assert texts(corpus) == {"train": [" a ", "b"]}


def test_single_document_is_cut_at_its_end(tmp_path):
  content = "0123456789" * 10
  source = write(tmp_path / "a.txt", content)
  corpus = load(
    source, documents="whole", valid_fraction=0.1, test_fraction=0.2
  )
  found = texts(corpus)
  assert {key: len(t) for key, (t,) in found.items()} == {
    "train": 72,
    "valid": 8,
    "test": 20,
  }
  assert "".join(found[k][0] for k in ("train", "valid", "test")) == content


def test_all_documents_can_be_cut_at_their_ends(tmp_path):
  write(tmp_path / "a.txt", "0123456789" * 10)
  write(tmp_path / "b.txt", "abcdefghij" * 5)
  corpus = load(
    f"file:{tmp_path}", hold_out="ends", valid_fraction=0.1, test_fraction=0.2
  )
  found = texts(corpus)
  assert {key: [*map(len, t)] for key, t in found.items()} == {
    "train": [72, 36],
    "valid": [8, 4],
    "test": [20, 10],
  }
  assert found["train"][1] == ("abcdefghij" * 5)[:36]
  assert found["test"][1] == "abcdefghij"


def test_size_is_counted_in_bytes_words_and_lines(tmp_path):
  source = write(tmp_path / "a.txt", " é b \n\n c")
  split = load(source, documents="whole").splits["train"]
  assert (split.num_bytes, split.num_words, split.num_lines) == (10, 3, 3)
  source = write(tmp_path / "a.txt", "a b\n")
  split = load(source, documents="whole").splits["train"]
  assert (split.num_bytes, split.num_words, split.num_lines) == (4, 2, 1)


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
def test_documents_can_be_a_column(tmp_path, kind):
  if kind == "tsv":
    content = 'id\tbody\n1\ta "b"\n2\tc\n'
  else:
    rows = [{"id": 1, "body": 'a "b"'}, {"body": "c"}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
  source = write(tmp_path / f"a.{kind}.gz", content)
  corpus = load(source, column="body")
  assert texts(corpus) == {"train": ['a "b"', "c"]}


@pytest.mark.parametrize(
  ("name", "content", "options", "message"),
  [
    (
      "a.txt",
      "a\n \nb\n",
      dict(documents="lines"),
      r"a\.txt, line 2: text is empty",
    ),
    ("a.txt", "", {}, "train has no example"),
    ("a.txt", " \n", dict(documents="whole"), "train has no example"),
    ("a.txt", "\n \n", dict(documents="paragraphs"), "train has no example"),
    (
      "a.txt",
      "a\n<|endoftext|>\n\n<|endoftext|>\nb",
      dict(documents="marked"),
      r"a\.txt, document before <\|endoftext\|>, line 2: text is empty",
    ),
    ("a.txt", "a", dict(documents="marked", marker=""), "marker must not be"),
    ("a.txt", "a", dict(documents="line"), "did you mean 'lines'"),
    ("a.tsv", "text\na\n", dict(documents="lines"), "applies to .txt files"),
    ("a.tsv", "text\tb\na\tb\na\n", {}, "line 3: 1 fields, .* header has 2"),
    ("a.tsv", "text\na\n\nb\n", {}, r"a\.tsv, line 3: text is empty"),
    ("a.tsv", "body\na\n", {}, "has no column text, it has body"),
    ("a.tsv", "text\ttext\n", {}, "line 1: a column is named twice"),
    ("a.tsv", "", {}, "is empty: it lacks a header"),
    ("a.jsonl", '{"text": "a"}\n{"text: 1}\n', {}, "line 2 is not JSON"),
    ("a.jsonl", '"a"\n', {}, "line 1 is not an object"),
    ("a.jsonl", '{"text": 3}\n', {}, "line 1: text must be a text, it is 3"),
    ("a.jsonl", '{"body": ""}\n', {}, "line 1 has no column text, it has body"),
    ("a.jsonl", '{"text": "\\ud800"}\n', {}, "line 1: text is not text"),
    ("a.docx", "a", {}, r"PATH\.txt\[.*PATH\.tsv\[.*PATH\.jsonl\["),
    ("a.txt", "a", dict(valid_fraction=1.0), r"valid_fraction .* \[0, 1\)"),
    ("a.txt", "a", dict(split_seed=-1), "split_seed must not be negative"),
    (
      "a.txt",
      "a\nb\n",
      dict(documents="lines", test_fraction=0.1),
      "of 2 training examples",
    ),
  ],
)
def test_documents_that_are_not_as_they_must_be_are_errors(
  tmp_path, name, content, options, message
):
  with pytest.raises(ValueError, match=message):
    load(write(tmp_path / name, content), **options)


@pytest.mark.parametrize("documents", ["lines", "marked"])
def test_empty_documents_can_be_left_out_which_is_logged(
  tmp_path, documents, caplog
):
  caplog.set_level("INFO", logger="absl")
  end = "\n" if documents == "lines" else "#"
  source = write(tmp_path / "a.txt", end.join(["a", "", " ", "b", ""]))
  corpus = load(source, documents=documents, marker="#", skip_empty=True)
  assert texts(corpus) == {"train": ["a", "b"]}
  assert "Left 2 empty documents of" in caplog.text


@pytest.mark.parametrize("source", ["embedded:digits", "pydoc", "file:", "a:b"])
def test_unknown_source_is_an_error(source):
  with pytest.raises(ValueError, match=f"documents '{source}'; choose among"):
    load(source)


def test_published_texts_have_their_published_sizes(data_dir):
  corpus = load(
    f"file:{data_dir}/wikitext2/{{split}}.txt.xz", documents="whole"
  )
  tokens = {
    key: split.num_words + split.num_lines
    for key, split in corpus.splits.items()
  }
  assert tokens == {"train": 2088628, "valid": 217646, "test": 245569}
  stories = load(
    f"file:{data_dir}/tinystories_sample/stories.txt.xz", documents="marked"
  )
  assert len(stories.splits["train"]) == 2316
