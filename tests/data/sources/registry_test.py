import re
import subprocess
import sys

import pytest

from bitnet_jax.data.sources import (
  csvfiles,
  folder,
  npz_arrays,
  npz_graphs,
  registry,
  textfiles,
  textgcn,
  tfds,
  tsv,
)
from bitnet_jax.data.splits import Cuts


@pytest.mark.parametrize(
  ("content", "source", "reader"),
  [
    ("arrays", "tfds:mnist:3.0.1", tfds.read_images),
    ("arrays", "file:no/such/file.npz", npz_arrays.read),
    ("arrays", "file:A.NPZ", npz_arrays.read),
    ("arrays", "folder:my pets/é", folder.read),
    ("documents", "file:~/a {split}:b.txt", textfiles.read_whole),
    ("documents", "file:a.txt.gz", textfiles.read_whole),
    ("documents", "file:a.tsv.xz", tsv.read),
    ("labeled texts", "textgcn:a/R8.clean", textgcn.read),
    ("pairs of texts", "file:{split}.{lang}.gz", textfiles.read_languages),
    ("pairs of texts", "file:{lang}.tsv", textfiles.read_languages),
    ("pairs of texts", "file:a.tsv", tsv.read),
    ("pairs of texts", "file:a.csv.gz", csvfiles.read),
    ("arrays", "file:{split}.csv", csvfiles.read_features),
    ("graphs", "file:folder", npz_graphs.read_folder),
  ],
)
def test_source_is_found_by_its_name_and_nothing_is_read(
  content, source, reader
):
  assert registry.find(content, source) == (reader, source.partition(":")[2])


@pytest.mark.parametrize(
  "source",
  ["digits", "embedded:", "embedded:mnist", "http:x.npz", "tfds:", "file:", ""],
)
def test_unknown_source_is_an_error_with_the_choices(source):
  with pytest.raises(ValueError) as caught:
    registry.find("arrays", source)
  assert str(caught.value).startswith(
    f"unknown source of arrays {source!r}; choose among embedded:digits,"
    " embedded:xor, tfds:NAME, file:PATH.npz, "
  )


@pytest.mark.parametrize(
  ("content", "source", "choices"),
  [
    ("arrays", "file:names.txt", "file:PATH.npz"),
    ("arrays", "file:set.npz.gz", "file:PATH.npz"),
    ("documents", "file:a.docx", "file:PATH.txt[.gz|.xz], file:PATH.tsv[.gz|"),
    ("documents", "file:a.txt.zip", "file:PATH.txt[.gz|.xz]"),
    ("labeled texts", "textgcn:a/R8", "textgcn:FOLDER/NAME.raw, textgcn:FOLD"),
    ("pairs of texts", "file:a.en", "file:...{lang}..., file:PATH.tsv[.gz|.xz"),
    ("a graph", "tfds:planetoid/wiki", "tfds:planetoid/cora, "),
    ("graphs", "embedded:graph", "(did you mean 'embedded:graphs'?)"),
  ],
)
def test_file_of_another_kind_is_an_error_with_the_choices(
  content, source, choices
):
  message = f"unknown source of {content} '{source}'; choose among"
  with pytest.raises(ValueError, match=message) as caught:
    registry.find(content, source)
  assert choices in str(caught.value)


def test_each_name_is_found_as_it_is_written():
  for content, known in registry.SOURCES.items():
    for name, reader in known.items():
      source = re.sub(r"\[.*", "", name)
      assert registry.find(content, source)[0] == reader


def test_modules_load_neither_scikit_learn_nor_tensorflow_datasets():
  program = (
    "import sys\n"
    "from bitnet_jax.data.batches import images, order\n"
    "from bitnet_jax.data.sources import embedded, registry\n"
    "from bitnet_jax.data.splits import Cuts\n"
    "embedded.digits('digits', Cuts())\n"
    "assert not {'sklearn', 'tensorflow_datasets', 'PIL'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", program], check=True)


def test_source_is_kept_for_a_block_and_those_inside_it():
  calls = []

  def reader(rest, cuts):
    del cuts
    calls.append(rest)
    return object()

  cuts = Cuts()
  with registry.keeping():
    first = registry.read(reader, "a", cuts)
    with registry.keeping():
      assert registry.read(reader, "a", cuts) is first
    assert registry.read(reader, "a", cuts) is first
    assert registry.read(reader, "b", cuts) is not first
  assert calls == ["a", "b"]
  assert registry.read(reader, "b", cuts) is not first
  assert calls == ["a", "b", "b"]
