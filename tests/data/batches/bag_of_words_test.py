import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer

from bitnet_jax.data.batches import bag_of_words
from bitnet_jax.data.batches.bag_of_words import count_words
from bitnet_jax.data.text.tokenizers import Ragged

TEXTS = Ragged.of([[5, 9, 5, 2], [9], [2, 2, 2]])
LABELS = np.array([1, 0, 1])


def matrix(found):
  """Returns the weights as [documents, vocabulary]."""
  dense = np.zeros((len(found.labels), found.vocab_size), np.float32)
  rows = np.repeat(np.arange(len(found.labels)), np.diff(found.offsets))
  np.add.at(dense, (rows, found.ids), found.weights)
  return dense


def counts(texts, vocab_size):
  return np.array([np.bincount(ids, minlength=vocab_size) for ids in texts])


def test_vocabulary_is_what_occurs_in_any_split():
  found = bag_of_words.occurring([TEXTS, Ragged.of([[7, 2], [30_000]])])
  assert found.dtype == np.int32
  assert found.tolist() == [2, 5, 7, 9, 30_000]


def test_mean_worked_by_hand():
  found = count_words(TEXTS, LABELS, np.array([2, 5, 9]), name="train")
  assert found.ids.tolist() == [0, 1, 2, 2, 0]
  assert found.offsets.tolist() == [0, 3, 4, 5]
  assert found.weights.tolist() == [0.25, 0.5, 0.25, 1, 1]
  assert found.labels.dtype == np.int32
  assert found.labels.tolist() == LABELS.tolist()
  assert found.vocab_size == 3


def test_tfidf_equals_that_of_sklearn():
  rng = np.random.default_rng(0)
  train, test = (
    Ragged.of(rng.integers(40, size=n) for n in rng.integers(1, 60, size=25))
    for _ in range(2)
  )
  vocabulary = np.arange(40)
  idf = bag_of_words.inverse_frequency(train, vocabulary)
  theirs = TfidfTransformer().fit(counts(train, 40))
  np.testing.assert_allclose(idf, theirs.idf_, rtol=1e-12)
  found = count_words(test, np.zeros(25), vocabulary, name="test", idf=idf)
  expected = theirs.transform(counts(test, 40)).toarray()
  np.testing.assert_allclose(matrix(found), expected, atol=1e-7)


def test_tokens_that_training_lacks_have_the_largest_factor():
  idf = bag_of_words.inverse_frequency(TEXTS, np.array([2, 3, 5, 9]))
  assert idf[1] == pytest.approx(np.log(4) + 1)
  assert idf[1] > idf[2] > idf[0] == idf[3]


@pytest.mark.parametrize(
  ("texts", "labels", "message"),
  [
    ([[2], [], [5]], [0, 0, 0], "document 1 of the valid split is empty"),
    ([[2], [5, 4]], [0, 0], "document 1 of the valid split holds the id 4"),
    ([[2], [99]], [0, 0], "document 1 of the valid split holds the id 99"),
    ([[2], [5]], [0], "the valid split has 2 documents and 1 labels"),
  ],
)
def test_bad_documents_are_named(texts, labels, message):
  vocabulary = np.array([2, 5, 9])
  with pytest.raises(ValueError, match=message):
    count_words(Ragged.of(texts), np.array(labels), vocabulary, name="valid")
