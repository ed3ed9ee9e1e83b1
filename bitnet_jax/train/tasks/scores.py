"""Metrics of a split: F1, Matthews, correlations, BLEU and others."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bitnet_jax import extras


def macro_f1(confusion: np.ndarray) -> float:
  """Returns the mean F1 of the classes that occur, as truth or prediction.

  Args:
    confusion: see ``matthews``.
  """
  metrics = _sklearn_metrics()
  confusion = _checked_confusion(confusion)
  occurring = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
  options = {"labels": occurring, "average": "macro", "zero_division": 0}
  return _of_counts(metrics.f1_score, confusion, **options)


def f1(confusion: np.ndarray) -> float:
  """Returns the F1 of the second of two classes; 0 if it was never predicted.

  It is the metric of MRPC and QQP, whose second class is the positive one.

  Args:
    confusion: see ``matthews``; [2, 2].
  """
  return _of_counts(_sklearn_metrics().f1_score, confusion, zero_division=0)


def matthews(confusion: np.ndarray) -> float:
  """Returns the Matthews correlation coefficient, in [-1, 1].

  It is 0 where there is one class only, or one prediction.

  Args:
    confusion: [num_classes, num_classes], the number (or weight) of examples of
      class i that were predicted as class j. Unlike predictions, it can be
      summed over batches and processes.

  Raises:
    ValueError: if it is not square, has negative or NaN entries, or is empty.
    ImportError: if scikit-learn is not installed.
  """
  return _of_counts(_sklearn_metrics().matthews_corrcoef, confusion)


def by_class(
  confusion: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, float]]:
  """Returns precision, recall, F1 and support of each class by its name.

  They are 0 where they are not defined: the precision of a class that was never
  predicted, and the recall of one that never occurs. The support is the number
  of examples.

  Args:
    confusion: see ``matthews``.
    names: of the classes, in their order.
  """
  metrics = _sklearn_metrics()
  confusion = _checked_confusion(confusion)
  pairs = np.argwhere(confusion)
  figures = metrics.precision_recall_fscore_support(
    *pairs.T,
    sample_weight=confusion[*pairs.T],
    labels=range(len(names)),
    zero_division=0,
  )
  return {
    name: {
      "precision": float(precision),
      "recall": float(recall),
      "f1": float(f1_score),
      "support": round(float(support)),
    }
    for name, precision, recall, f1_score, support in zip(
      names, *figures, strict=True
    )
  }


def _sklearn_metrics() -> Any:
  extras.need("F1 and Matthews correlation", "sklearn", extra="train")
  from sklearn import metrics

  return metrics


def _of_counts(
  score: Callable[..., Any], confusion: np.ndarray, **options: Any
) -> float:
  """Returns a score of scikit-learn, of pairs (truth, prediction) by weight."""
  confusion = _checked_confusion(confusion)
  truth, predicted = np.indices(confusion.shape).reshape(2, -1)
  weights = confusion.ravel()
  return float(score(truth, predicted, sample_weight=weights, **options))


def _checked_confusion(confusion):
  """Returns the matrix as float64 after checking it."""
  confusion = np.asarray(confusion, np.float64)
  if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
    raise ValueError(
      "a confusion matrix must be [num_classes, num_classes], this is"
      f" {list(confusion.shape)}"
    )
  if not np.all(confusion >= 0):
    row, column = np.argwhere(~(confusion >= 0))[0]
    raise ValueError(
      "a confusion matrix counts examples, but this one holds"
      f" {confusion[row, column]} at [{row}, {column}]"
    )
  if not confusion.sum():
    raise ValueError("the confusion matrix holds no example")
  return confusion


def pearson(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the linear correlation of two arrays [n], in [-1, 1].

  It is 0 where one of them is constant.

  Raises:
    ValueError: if they are not of one length, are empty, or hold a value that
      is not finite.
    ImportError: if scipy is not installed.
  """
  x, y = _checked_pair(x, y)
  # SciPy calls it NaN. Equality, not the variance: rounding leaves some of it.
  if (x == x[0]).all() or (y == y[0]).all():
    return 0.0
  extras.need("correlations", "scipy", extra="train")
  from scipy import stats

  with warnings.catch_warnings():
    warnings.simplefilter("ignore", stats.NearConstantInputWarning)
    return float(stats.pearsonr(x, y).statistic)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the correlation of the ranks in two arrays [n].

  Equal values share the mean of their ranks. See ``pearson`` for the rest.
  """
  extras.need("correlations", "scipy", extra="train")
  from scipy import stats

  return pearson(*(stats.rankdata(values) for values in _checked_pair(x, y)))


def _checked_pair(x, y):
  """Returns both arrays as float64 [n] after checking them."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if x.ndim != 1 or y.ndim != 1:
    raise ValueError(
      f"both arrays must be [n], they are {list(x.shape)} and {list(y.shape)}"
    )
  _check_lengths(x, y, "values in the one array", "in the other")
  for values in (x, y):
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
      raise ValueError(f"the value at index {bad[0]} is {values[bad[0]]}")
  return x, y


def _check_lengths(a, b, name_a, name_b):
  if len(a) != len(b):
    raise ValueError(f"there are {len(a)} {name_a} and {len(b)} {name_b}")
  if not len(a):
    raise ValueError(f"there are 0 {name_a}: nothing to score")


def perplexity(nll: float, count: float) -> float:
  """Returns the exponential of the mean negative log-likelihood.

  Per token, or per word: the likelihood of a text in subword tokens is that of
  its words, so that with the number of its words as ``count`` models with
  different vocabularies can be compared.

  Args:
    nll: total negative log-likelihood of a text, in nats.
    count: what the mean is over; more than 0.

  Returns:
    The perplexity; infinity where it exceeds what a float holds.
  """
  mean = _mean(nll, count)
  return math.exp(mean) if mean < math.log(np.finfo(float).max) else math.inf


def bits_per_byte(nll: float, num_bytes: float) -> float:
  """Returns how many bits the model needs for a byte of the text.

  Args:
    nll: total negative log-likelihood of a text, in nats.
    num_bytes: length of the text in UTF-8; more than 0.
  """
  return _mean(nll, num_bytes) / math.log(2)


def _mean(nll, count):
  if not count > 0:
    raise ValueError(f"the mean over {count} is not defined: nothing to score")
  return float(nll) / float(count)


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
  """Returns the BLEU of a corpus, in [0, 100], as ``sacrebleu`` computes it.

  Its default settings: tokens "13a", case kept, exponential smoothing.

  Args:
    predictions: detokenized texts.
    references: one for each of them.

  Raises:
    ValueError: if there are none, or not as many of both.
    ImportError: if ``sacrebleu`` is not installed.
  """
  return _of_corpus("BLEU", predictions, references)


def chrf(predictions: Sequence[str], references: Sequence[str]) -> float:
  """Returns the chrF2 of a corpus, in [0, 100], as ``sacrebleu`` computes it.

  Arguments and errors are those of ``bleu``.
  """
  return _of_corpus("CHRF", predictions, references)


def _of_corpus(name, predictions, references):
  _check_texts(predictions, references)
  extras.need("BLEU and chrF", "sacrebleu", extra="train")
  import sacrebleu

  metric = getattr(sacrebleu, name)()
  return metric.corpus_score(list(predictions), [list(references)]).score


def rouge(
  predictions: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
  """Returns ROUGE-1, ROUGE-2 and ROUGE-L, in [0, 100].

  Means over the texts of the F measures that ``rouge_score`` gives, without
  stemming. It sees the letters a to z and digits only, in lower case.

  Args:
    predictions: texts.
    references: one for each of them.

  Returns:
    The scores by the names "rouge1", "rouge2" and "rougeL".

  Raises:
    ValueError: if there are none, or not as many of both.
    ImportError: if ``rouge-score`` is not installed.
  """
  _check_texts(predictions, references)
  extras.need("ROUGE", "rouge_score", extra="train")
  from rouge_score import rouge_scorer

  names = ["rouge1", "rouge2", "rougeL"]
  scorer = rouge_scorer.RougeScorer(names)
  found = [*map(scorer.score, references, predictions)]
  return {
    name: 100 * math.fsum(score[name].fmeasure for score in found) / len(found)
    for name in names
  }


def _check_texts(predictions, references):
  for name, texts in (
    ("predictions", predictions),
    ("references", references),
  ):
    if isinstance(texts, str):
      raise ValueError(f"{name} must be several texts, not one: {texts!r}")
  _check_lengths(predictions, references, "predictions", "references")
