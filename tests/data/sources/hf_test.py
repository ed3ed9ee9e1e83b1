import json

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from bitnet_jax import extras
from bitnet_jax.data import splits
from bitnet_jax.data.sources import hf, hf_sets
from bitnet_jax.data.views import documents, labeled_texts, pairs
from tests.data.loading import load

NAMES = ["no", "yes"]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
  """A cache of these tests, in place of that of the user."""
  folder = str(tmp_path_factory.mktemp("cache"))
  with (
    pytest.MonkeyPatch.context() as patch,
    hf_sets._quiet(datasets),
  ):
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    yield


def labeled(texts, labels=None):
  labels = labels or [i % 2 for i in range(len(texts))]
  features = {"sentence": Value("string"), "label": ClassLabel(names=NAMES)}
  return Dataset.from_dict(
    {"sentence": texts, "label": labels}, features=Features(features)
  )


def save(folder, **parts):
  DatasetDict(parts).save_to_disk(str(folder))
  return f"hf:{folder}"


def test_saved_set_gives_labeled_texts_with_the_names_of_classes(tmp_path):
  source = save(
    tmp_path / "a set",
    train=labeled(["good", "bad", "ok", "no"]),
    validation=labeled(["fine"], [1]),
    test=labeled(["what"], [-1]),  # as unpublished labels are
  )
  found = load(labeled_texts.load, source)
  assert found.class_names == ("no", "yes")
  assert {k: [*v.texts[0]] for k, v in found.splits.items()} == {
    "train": ["good", "bad", "ok", "no"],
    "valid": ["fine"],
  }
  assert found.splits["train"].labels.tolist() == [0, 1, 0, 1]
  assert found.splits["valid"].labels.tolist() == [1]


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_folder_of_files_is_read_as_the_library_reads_it(tmp_path, ending):
  for name, texts in {"train": ["a b", "c"], "test": ["é ü"]}.items():
    table = labeled(texts)
    getattr(table, f"to_{ending}")(str(tmp_path / f"{name}.{ending}"))
  found = load(labeled_texts.load, f"hf:{tmp_path}", columns=("sentence",))
  assert [*found.splits] == ["train", "test"]
  assert [*found.splits["test"].texts[0]] == ["é ü"]
  # Only Parquet keeps the names.
  names = ("no", "yes") if ending == "parquet" else ("0", "1")
  assert found.class_names == names


def test_documents_stay_on_disk_when_they_are_cut(tmp_path):
  texts = [f"text {i}" for i in range(30)]
  source = save(tmp_path, train=labeled(texts))
  options = dict(column="sentence", valid_fraction=0.2, test_fraction=0.1)
  found = load(documents.load, source, **options)
  for split in found.splits.values():
    assert isinstance(split.texts, hf.Column)
  assert {k: len(v) for k, v in found.splits.items()} == dict(
    train=22, valid=5, test=3
  )
  again = [text for split in found.splits.values() for text in split.texts]
  assert sorted(again) == sorted(texts)
  train = found.splits["train"].texts
  assert [train[i] for i in range(len(train))] == [*train]
  assert train[-1] == [*train][-1]


def test_fingerprint_is_that_of_the_content_alone(tmp_path):
  texts = [f"text {i}" for i in range(2500)]
  saved = save(tmp_path / "one", train=labeled(texts))
  in_shards = tmp_path / "two"
  DatasetDict(train=labeled(texts)).save_to_disk(
    str(in_shards), num_shards={"train": 3}
  )
  other = save(tmp_path / "three", train=labeled([*texts[:-1], "changed"]))
  (tmp_path / "four").mkdir()
  labeled(texts).to_parquet(str(tmp_path / "four" / "train.parquet"))
  (tmp_path / "five").mkdir()
  lines = "".join(json.dumps({"sentence": text}) + "\n" for text in texts)
  (tmp_path / "five" / "a.jsonl").write_text(lines)

  def fingerprint(source):
    return load(documents.load, source, column="sentence").fingerprint

  first = fingerprint(saved)
  assert fingerprint(f"hf:{in_shards}") == first
  assert fingerprint(f"hf:{tmp_path / 'four'}") == first
  # As that of the same texts in a file.
  assert fingerprint(f"file:{tmp_path / 'five' / 'a.jsonl'}") == first
  assert fingerprint(other) != first


def test_translations_are_pairs(tmp_path):
  values = [{"de": f"Satz {i}", "en": f"sentence {i}"} for i in range(4)]
  table = Dataset.from_dict(
    {"translation": values, "id": [*range(4)]},
    features=Features(
      {"translation": datasets.Translation(["de", "en"]), "id": Value("int64")}
    ),
  )
  source = save(tmp_path, train=table)
  found, back = (
    load(pairs.load, source, languages=languages)
    for languages in ((), ("en", "de"))
  )
  assert [*found.splits["train"].sources] == [f"Satz {i}" for i in range(4)]
  assert [*found.splits["train"].targets] == [f"sentence {i}" for i in range(4)]
  assert [*back.splits["train"].sources] == [*found.splits["train"].targets]


def test_pairs_without_a_translation_need_columns(tmp_path):
  table = Dataset.from_dict({"article": ["a b c"], "highlights": ["a"]})
  source = save(tmp_path, train=table)
  with pytest.raises(ValueError, match="article, highlights; languages must"):
    load(pairs.load, source)
  found = load(pairs.load, source, languages=("article", "highlights"))
  assert [*found.splits["train"].sources] == ["a b c"]


def test_split_names_choose_splits_and_parts_of_them(tmp_path):
  texts = [f"text {i}" for i in range(10)]
  source = save(
    tmp_path, train=labeled(texts), dev=labeled(["d"]), extra=labeled(["e"])
  )

  def splits_of(**names):
    names = tuple(names.items())
    return {
      key: [*split.texts[0]]
      for key, split in load(
        labeled_texts.load, source, split_names=names
      ).splits.items()
    }

  assert splits_of() == {"train": texts, "valid": ["d"]}
  assert splits_of(test="extra")["test"] == ["e"]
  assert splits_of(train="train[:30%]", valid="train[-2:]") == {
    "train": texts[:3],
    "valid": texts[-2:],
  }
  with pytest.raises(ValueError, match="no split more, it has train, dev, ext"):
    splits_of(test="more")
  with pytest.raises(ValueError, match=r"split_names='train\[:a%\]': "):
    splits_of(test="train[:a%]")


def test_set_without_train_says_what_it_has(tmp_path):
  source = save(tmp_path, all=labeled(["a"]))
  with pytest.raises(ValueError, match="no split train, it has all; split_nam"):
    load(labeled_texts.load, source)
  source = save(
    tmp_path / "two",
    train=labeled("a"),
    dev=labeled("b"),
    validation=labeled("c"),
  )
  with pytest.raises(ValueError, match="valid can be validation or dev: say"):
    load(labeled_texts.load, source)


def test_missing_column_names_those_there(tmp_path):
  source = save(tmp_path, train=labeled(["a"]))
  with pytest.raises(ValueError, match="no column text, it has sentence, lab"):
    load(documents.load, source)
  with pytest.raises(ValueError, match="no column body, it has sentence, labe"):
    load(labeled_texts.load, source, columns=("body",))


def test_missing_and_empty_texts_are_named_with_their_row(tmp_path):
  source = save(tmp_path / "a", train=labeled(["a", None, "b"]))
  with pytest.raises(ValueError, match="train, row 1: sentence must be a text"):
    load(labeled_texts.load, source)
  source = save(tmp_path / "b", train=labeled(["a", "b", " "]))
  with pytest.raises(ValueError, match="train, row 2: sentence is empty"):
    load(documents.load, source, column="sentence")
  found = load(documents.load, source, column="sentence", skip_empty=True)
  assert [*found.splits["train"].texts] == ["a", "b"]


def test_splits_with_other_classes_are_an_error(tmp_path):
  features = {
    "sentence": Value("string"),
    "label": ClassLabel(names=["x", "y"]),
  }
  other = Dataset.from_dict(
    {"sentence": ["a"], "label": [0]}, features=Features(features)
  )
  source = save(tmp_path, train=labeled(["a", "b"]), test=other)
  message = "label has the classes no, yes in train, but x, y in test"
  with pytest.raises(ValueError, match=message):
    load(labeled_texts.load, source)


def test_row_without_a_class_has_no_label(tmp_path):
  source = save(
    tmp_path, train=labeled(["a", "b"]), test=labeled(["c"], [None])
  )
  assert [*load(labeled_texts.load, source).splits] == ["train"]


@pytest.mark.parametrize(
  ("name", "error", "message"),
  [
    ("nowhere/sub/set", FileNotFoundError, "there is no folder .*nowhere/sub"),
    ("./nowhere", FileNotFoundError, "there is no folder .*nowhere"),
    ("~/no where", FileNotFoundError, "there is no folder .*no where"),
  ],
)
def test_folder_that_is_not_there_is_an_error(name, error, message):
  with pytest.raises(error, match=f"hf:{name}: {message}"):
    hf.read(name, splits.NO_CUTS)


def test_file_is_pointed_to_the_other_source(tmp_path):
  file = tmp_path / "a.csv"
  file.write_text("a,b\n1,2\n")
  with pytest.raises(
    ValueError, match="is a file; hf: reads folders, and file"
  ):
    hf.read(str(file), splits.NO_CUTS)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("a.parquet", b"PAR1 no"),
    ("a.json", b"{broken"),
    ("a.csv", b'a,b\n1,2,3\n4,"5\n'),
    ("a.csv", b""),
    ("a.xyz", b"what"),
    ("set.py", b"raise SystemExit"),
    ("state.json", b"{}"),
    ("dataset_dict.json", b"[]"),
  ],
)
def test_damaged_folder_is_an_error_of_one_line(tmp_path, name, content):
  folder = tmp_path / "set"
  folder.mkdir()
  (folder / name).write_bytes(content)
  with pytest.raises(ValueError, match=r"^cannot read hf:") as caught:
    hf.read(str(folder), splits.NO_CUTS)
  assert "\n" not in str(caught.value)
  assert len(str(caught.value)) < 400 + len(str(folder))


@pytest.mark.slow
def test_set_of_the_hub_without_network_is_an_error_at_once(monkeypatch):
  monkeypatch.setattr(hf_sets, "_is_offline", lambda _: True)
  for name in ("some/set", "some/set:config", "set"):
    with pytest.raises(
      ValueError, match="save_to_disk and give hf:FOLDER"
    ) as e:
      hf.read(name, splits.NO_CUTS)
    assert str(e.value).startswith(f"hf:{name} is neither a folder here nor in")
    assert "\n" not in str(e.value)
  assert not datasets.config.HF_HUB_OFFLINE


def test_hub_that_does_not_answer_counts_as_offline(monkeypatch):
  # Nothing listens there.
  monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
  monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
  assert hf_sets._is_offline(datasets)


@pytest.mark.slow
def test_configurations_are_listed(tmp_path):
  for name in ("en", "fr"):
    (tmp_path / name).mkdir()
    labeled([name]).to_parquet(str(tmp_path / name / "train.parquet"))
  (tmp_path / "README.md").write_text(
    "---\nconfigs:\n"
    "- config_name: en\n  data_files: en/train.parquet\n"
    "- config_name: fr\n  data_files: fr/train.parquet\n---\n"
  )
  found = load(labeled_texts.load, f"hf:{tmp_path}:fr")
  assert [*found.splits["train"].texts[0]] == ["fr"]
  listed = f"choose among hf:{tmp_path}:en, hf:{tmp_path}:fr"
  with pytest.raises(ValueError, match=f"has several configurations; {listed}"):
    hf.read(str(tmp_path), splits.NO_CUTS)
  with pytest.raises(ValueError, match=f"no configuration 'de'; {listed}"):
    hf.read(f"{tmp_path}:de", splits.NO_CUTS)


def test_library_that_is_missing_is_named_with_the_extra(monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "datasets", None)
  with pytest.raises(extras.MissingExtraError) as caught:
    hf.read("some/set", splits.NO_CUTS)
  expected = "hf:some/set needs datasets: pip install 'bitnet-jax[hf]'"
  assert str(caught.value) == expected


def test_settings_of_the_library_are_restored(tmp_path):
  source = save(tmp_path, train=labeled(["a", "b"]))
  before = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
  datasets.enable_progress_bars()
  try:
    load(labeled_texts.load, source)
    assert not datasets.are_progress_bars_disabled()
  finally:
    datasets.disable_progress_bars()
  assert datasets.config.HF_UPDATE_DOWNLOAD_COUNTS == before
