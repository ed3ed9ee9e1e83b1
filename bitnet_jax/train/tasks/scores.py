"""Scores: from predictions, or from sums over a split, to numbers."""

import math
from collections.abc import Sequence

import numpy as np


def accuracy(confusion: np.ndarray) -> float:
  """Returns the share of examples that are classified as what they are.

  Args:
    confusion: see ``matthews``.
  """
  confusion = _checked_confusion(confusion)
  return float(confusion.trace() / confusion.sum())


def macro_f1(confusion: np.ndarray) -> float:
  """Returns the mean F1 of the classes that occur, as truth or prediction.

  The F1 of a class is the harmonic mean of its precision and recall, 0 if no
  example of it was found.

  Args:
    confusion: see ``matthews``.
  """
  confusion = _checked_confusion(confusion)
  present = confusion.sum(0) + confusion.sum(1)
  occurs = present > 0
  return float(np.mean(2 * np.diag(confusion)[occurs] / present[occurs]))


def f1(confusion: np.ndarray) -> float:
  """Returns the F1 of the second of two classes, as scikit-learn has it.

  It is the figure of MRPC and QQP, whose second class is the positive one; 0
  if no example of it was found.

  Args:
    confusion: see ``matthews``; [2, 2].

  Raises:
    ImportError: if scikit-learn is not installed.
  """
  confusion = _checked_confusion(confusion)
  try:
    from sklearn.metrics import f1_score
  except ImportError as error:
    raise ImportError(
      "F1 needs scikit-learn: pip install 'bitnet-jax[train]'"
    ) from error
  truth, found = np.indices((2, 2)).reshape(2, 4)
  weight = confusion.ravel()
  return float(f1_score(truth, found, sample_weight=weight, zero_division=0))


def matthews(confusion: np.ndarray) -> float:
  """Returns the correlation of Matthews between classes and predictions.

  It lies in [-1, 1], and is 0 where there is one class only, or one prediction.

  Args:
    confusion: [num_classes, num_classes], the number (or weight) of examples of
      class i that were taken for class j.

  Raises:
    ValueError: if it is not square, has negative or NaN entries, or is empty.
  """
  confusion = _checked_confusion(confusion)
  total, hits = confusion.sum(), confusion.trace()
  truth, predicted = confusion.sum(1), confusion.sum(0)
  covariance = hits * total - truth @ predicted
  variances = (total**2 - truth @ truth) * (total**2 - predicted @ predicted)
  return float(covariance / math.sqrt(variances)) if variances > 0 else 0.0


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
  """Returns the linear correlation of two arrays [n].

  It lies in [-1, 1], and is 0 where one of them is constant.

  Raises:
    ValueError: if they are not of one length, are empty, or hold a value that
      is not finite.
  """
  return _correlation(*_checked_pair(x, y))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
  """Returns the correlation of the ranks in two arrays [n].

  Equal values share the mean of their ranks. See ``pearson`` for the rest.
  """
  return _correlation(*map(_ranks, _checked_pair(x, y)))


def _correlation(x, y):
  # Equality, not the variance: rounding leaves a constant array some of it.
  if (x == x[0]).all() or (y == y[0]).all():
    return 0.0
  x, y = (_unit(values) for values in (x, y))
  return float(np.clip(x @ y, -1, 1))


def _unit(values):
  """Returns the deviations from the mean, scaled to norm 1."""
  deviations = values - values.mean()
  deviations /= np.abs(
    deviations
  ).max()  # so that no square over- or underflows
  return deviations / np.linalg.norm(deviations)


def _ranks(values):
  """Returns the rank of each value, from 1; equal ones share their mean."""
  _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[group]


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

  Per token, or per word: the likelihood of a text in pieces is that of its
  words, so that with the number of its words as ``count`` models with different
  vocabularies can be compared.

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
  """Returns the BLEU of a corpus, in [0, 100], as ``sacrebleu`` has it.

  Its default settings: tokens "13a", case kept, exponential smoothing.

  Args:
    predictions: detokenized texts.
    references: one for each of them.

  Raises:
    ValueError: if there are none, or not as many of both.
    ImportError: if ``sacrebleu`` is not installed.
  """
  _check_texts(predictions, references)
  metric = _import_sacrebleu().BLEU()
  return metric.corpus_score(list(predictions), [list(references)]).score


def chrf(predictions: Sequence[str], references: Sequence[str]) -> float:
  """Returns the chrF2 of a corpus, in [0, 100], as ``sacrebleu`` has it.

  Arguments and errors are those of ``bleu``.
  """
  _check_texts(predictions, references)
  metric = _import_sacrebleu().CHRF()
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
  try:
    from rouge_score import rouge_scorer
  except ImportError as error:
    raise ImportError(
      "ROUGE needs rouge-score: pip install 'bitnet-jax[train]'"
    ) from error
  names = ["rouge1", "rouge2", "rougeL"]
  scorer = rouge_scorer.RougeScorer(names)
  scores = [
    scorer.score(reference, prediction)
    for prediction, reference in zip(predictions, references, strict=True)
  ]
  return {
    name: 100
    * math.fsum(score[name].fmeasure for score in scores)
    / len(scores)
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


def _import_sacrebleu():
  try:
    import sacrebleu
  except ImportError as error:
    raise ImportError(
      "BLEU and chrF need sacrebleu: pip install 'bitnet-jax[train]'"
    ) from error
  return sacrebleu
