import email.message
import inspect
import sysconfig

import numpy as np
import pytest

from bitnet_jax.data import splits
from bitnet_jax.data.sources import docstrings
from bitnet_jax.data.views import labeled_texts
from tests.data import loading


def load(source, **options):
  return loading.load(labeled_texts.load, source, **options)


def test_docstrings_are_those_of_the_modules():
  table = docstrings.read("docstrings", splits.NO_CUTS).splits["train"]
  modules = dict(
    zip(table.columns["text"], table.columns["label"], strict=True)
  )
  assert len(modules) == len(table.columns["text"])  # none twice
  assert set(modules.values()) == set(docstrings.MODULES)
  assert modules[inspect.getdoc(email.message.Message)] == "email"
  assert min(len(text.split()) for text in modules) == 4


@pytest.mark.slow
def test_source_is_cut_into_splits():
  corpus = load("embedded:docstrings", test_fraction=0.2, valid_fraction=0.1)
  assert corpus.class_names == docstrings.MODULES
  sizes = {name: len(split) for name, split in corpus.splits.items()}
  total = sum(sizes.values())
  assert total > 1_500
  assert sizes["test"] == round(0.2 * total)
  counts = np.bincount(corpus.splits["test"].labels)
  assert counts.max() < 0.25 * counts.sum()  # what a constant gets right


def test_library_without_sources_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
  with pytest.raises(FileNotFoundError, match="has none of _pydecimal"):
    docstrings.read("docstrings", splits.NO_CUTS)
