import math
import sys

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from bitnet_jax.train.tasks import scores

SIZES = [(2, 40), (5, 300), (20, 60)]


def draw(num_classes, n, seed=0):
  """Returns classes and predictions that are right about half of the time."""
  rng = np.random.default_rng(seed)
  truth = rng.integers(num_classes, size=n)
  noise = rng.integers(num_classes, size=n)
  return truth, np.where(rng.random(n) < 0.5, truth, noise)


def confusion(truth, predicted, num_classes):
  matrix = np.zeros((num_classes, num_classes))
  np.add.at(matrix, (truth, predicted), 1)
  return matrix


def test_scores_of_two_classes_worked_by_hand():
  matrix = np.array([[3, 1], [2, 4]])
  # Precision and recall: 3/5 and 3/4; 4/5 and 4/6.
  assert scores.macro_f1(matrix) == pytest.approx((2 / 3 + 8 / 11) / 2)
  assert scores.matthews(matrix) == pytest.approx(10 / math.sqrt(600))


def test_f1_is_that_of_the_second_class():
  assert scores.f1(np.array([[3, 1], [2, 4]])) == pytest.approx(8 / 11)
  assert scores.f1(np.array([[3, 0], [2, 0]])) == 0
  assert scores.f1(np.array([[3, 0], [0, 0]])) == 0
  truth, predicted = draw(2, 50)
  theirs = sklearn.metrics.f1_score(truth, predicted, pos_label=1)
  assert scores.f1(confusion(truth, predicted, 2)) == pytest.approx(theirs)


@pytest.mark.parametrize(("num_classes", "n"), SIZES)
def test_confusion_scores_equal_those_of_sklearn(num_classes, n):
  truth, predicted = draw(num_classes, n)
  matrix = confusion(truth, predicted, num_classes)
  for ours, theirs in (
    (scores.matthews, sklearn.metrics.matthews_corrcoef),
    (
      scores.macro_f1,
      lambda t, p: sklearn.metrics.f1_score(t, p, average="macro"),
    ),
  ):
    assert ours(matrix) == pytest.approx(theirs(truth, predicted), abs=1e-12)


def test_figures_of_classes_equal_those_of_sklearn():
  truth, predicted = draw(3, 40)
  # The class "d" is neither there nor predicted.
  found = scores.by_class(confusion(truth, predicted, 4), "abcd")
  report = sklearn.metrics.classification_report(
    truth,
    predicted,
    labels=range(4),
    target_names=[*"abcd"],
    output_dict=True,
    zero_division=0,
  )
  assert [*found] == [*"abcd"]
  for name, figures in found.items():
    theirs = report[name]
    theirs["f1"] = theirs.pop("f1-score")
    theirs["support"] = int(theirs["support"])
    assert figures == theirs
  assert {*found["d"].values()} == {0}


def test_classes_that_do_not_occur_do_not_count():
  truth, predicted = draw(3, 50)
  small = confusion(truth, predicted, 3)
  large = confusion(truth + 2, predicted + 2, 9)
  for score in (scores.macro_f1, scores.matthews):
    assert score(large) == pytest.approx(score(small), abs=1e-12)


@pytest.mark.parametrize("matrix", [[[4, 0], [2, 0]], [[3, 2], [0, 0]]])
def test_matthews_of_a_constant_is_zero(matrix):
  assert scores.matthews(np.array(matrix)) == 0


@pytest.mark.parametrize(
  ("matrix", "message"),
  [
    (np.zeros((2, 2)), "no example"),
    (np.ones((2, 3)), r"\[2, 3\]"),
    (np.ones(4), r"\[4\]"),
    (np.array([[1, 2], [-3, 1]]), r"-3.0 at \[1, 0\]"),
    (np.array([[1, np.nan], [3, 1]]), r"nan at \[0, 1\]"),
  ],
)
def test_bad_confusions_are_refused(matrix, message):
  for score in (scores.macro_f1, scores.matthews):
    with pytest.raises(ValueError, match=message):
      score(matrix)


@pytest.mark.parametrize("levels", [3, 1_000_000])
def test_correlations_equal_those_of_scipy(levels):
  rng = np.random.default_rng(0)
  x = rng.integers(levels, size=200)
  y = x // 2 + rng.integers(levels, size=200)
  assert len(np.unique(x)) < 200 or levels > 3  # with ties, and without
  assert scores.pearson(x, y) == pytest.approx(scipy.stats.pearsonr(x, y)[0])
  assert scores.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y)[0])


def test_correlations_of_scaled_values_are_one():
  x = np.array([1e-200, 3e-200, 2e-200])
  assert scores.pearson(x, 5e300 * x) == pytest.approx(1)
  assert scores.pearson(x, -x) == pytest.approx(-1)
  assert scores.spearman(x, np.exp(x * 1e200)) == pytest.approx(1)


def test_correlation_with_a_constant_is_zero():
  x, constant = np.arange(10.0), np.full(10, 0.1)
  assert scores.pearson(x, constant) == 0
  assert scores.spearman(constant, x) == 0


@pytest.mark.parametrize(
  ("x", "y", "message"),
  [
    ([], [], "0 values"),
    ([1, 2], [1], "2 values in the one array and 1 in the other"),
    ([[1, 2]], [[1, 2]], r"\[1, 2\]"),
    ([1, 2, 3], [1, math.nan, 3], "index 1 is nan"),
  ],
)
def test_bad_pairs_are_refused(x, y, message):
  for score in (scores.pearson, scores.spearman):
    with pytest.raises(ValueError, match=message):
      score(np.array(x), np.array(y))


def test_likelihoods_worked_by_hand():
  # 20 tokens of probability 1/4 each, which spell 10 words of 50 bytes.
  nll = 20 * math.log(4)
  assert scores.perplexity(nll, 20) == pytest.approx(4)
  assert scores.perplexity(nll, 10) == pytest.approx(16)
  assert scores.bits_per_byte(nll, 50) == pytest.approx(40 / 50)
  assert scores.perplexity(1e6, 1) == math.inf


@pytest.mark.parametrize("count", [0, -1, math.nan])
def test_likelihood_of_nothing_is_refused(count):
  for score in (scores.perplexity, scores.bits_per_byte):
    with pytest.raises(ValueError, match="nothing to score"):
      score(1.0, count)


PREDICTIONS = ["A man rides a red bike down the hill.", "Two dogs run."]
REFERENCES = ["A man rides a red bike down a hill.", "Two dogs are running."]


def test_translation_scores_of_a_copy_and_of_something_else():
  for score in (scores.bleu, scores.chrf):
    assert score(REFERENCES, REFERENCES) == pytest.approx(100)
    assert 20 < score(PREDICTIONS, REFERENCES) < 90
    assert score(["q", "z"], REFERENCES) < 1


def test_bleu_is_that_of_the_corpus():
  # Matches of 1 to 4 tokens over both texts: 9 + 3 of 10 + 4, 7 + 1 of 9 + 3,
  # 5 of 8 + 2, 4 of 7 + 1; the references have 15 tokens.
  precisions = np.array([12 / 14, 8 / 12, 5 / 10, 4 / 8])
  expected = 100 * math.exp(1 - 15 / 14) * np.prod(precisions) ** 0.25
  assert scores.bleu(PREDICTIONS, REFERENCES) == pytest.approx(expected)


def test_rouge_worked_by_hand():
  found = scores.rouge(["the cat sat down", "a b"], ["the cat sat", "x y"])
  # First text: 3 of 4 words and 3 of 3; 2 of 3 pairs and 2 of 2.
  assert found == pytest.approx(
    {"rouge1": 50 * 6 / 7, "rouge2": 50 * 4 / 5, "rougeL": 50 * 6 / 7}
  )


@pytest.mark.parametrize("score", [scores.bleu, scores.chrf, scores.rouge])
def test_texts_that_cannot_be_compared_are_refused(score):
  with pytest.raises(ValueError, match="0 predictions"):
    score([], [])
  with pytest.raises(ValueError, match="1 predictions and 2 references"):
    score(["a"], ["a", "b"])
  with pytest.raises(ValueError, match="predictions must be several texts"):
    score("ab", ["a", "b"])


@pytest.mark.parametrize(
  ("score", "module", "argument"),
  [
    (scores.bleu, "sacrebleu", ["a"]),
    (scores.chrf, "sacrebleu", ["a"]),
    (scores.rouge, "rouge_score", ["a"]),
    (scores.pearson, "scipy", [1, 2]),
    (scores.spearman, "scipy", [1, 2]),
  ],
)
def test_a_missing_package_says_how_to_install_it(
  score, module, argument, monkeypatch
):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(ImportError, match=r"bitnet-jax\[train\]"):
    score(argument, argument)


@pytest.mark.parametrize("score", [scores.f1, scores.macro_f1, scores.matthews])
def test_scores_of_confusions_say_how_to_install_theirs(score, monkeypatch):
  monkeypatch.setitem(sys.modules, "sklearn", None)
  with pytest.raises(ImportError, match=r"bitnet-jax\[train\]"):
    score(np.eye(2))
