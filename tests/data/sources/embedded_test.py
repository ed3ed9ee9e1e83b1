"""Data that come with Python and its packages."""

import numpy as np
import sklearn
import sklearn.datasets

from bitnet_jax.data.sources import embedded
from bitnet_jax.data.splits import Cuts


def test_digits_are_those_of_scikit_learn():
  found = embedded.digits("digits", Cuts())
  columns = found.splits["train"].columns
  pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
  np.testing.assert_array_equal(
    columns["inputs"][..., 0], pixels.reshape(-1, 8, 8)
  )
  np.testing.assert_array_equal(columns["labels"], labels)
  assert columns["inputs"].dtype == np.uint8
  assert columns["labels"].dtype == labels.dtype
  assert found.fingerprint.endswith(f"scikit-learn {sklearn.__version__}")
