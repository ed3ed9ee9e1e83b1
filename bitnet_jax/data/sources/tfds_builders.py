"""TFDS builders of the sources that come with the library, for `tfds build`.

    tfds build bitnet_digits --imports=bitnet_jax.data.sources.tfds_builders \
      --file_format=array_record --data_dir=DIR

writes a set into DIR, which the source `tfds:bitnet_digits` reads. The program
`tfds` needs TensorFlow; `build` here does not.
"""

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from etils import epath

from bitnet_jax.data import splits
from bitnet_jax.data.sources import docstrings, embedded, random_graphs
from bitnet_jax.data.sources.registry import Reader
from bitnet_jax.extras import needed_by

with needed_by("TFDS builders", "tensorflow-datasets", extra="tfds"):
  import tensorflow_datasets as tfds

  from bitnet_jax.data.sources.planetoid_tfds import Planetoid

# TFDS calls the splits so.
_NAMES = {"train": "train", "valid": "validation", "test": "test"}


class _Embedded(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A builder that copies a source, in its order.

  Attributes:
    READER: reads the source.
    COLUMNS: the features of the set by their names in the source.
    FEATURES: the type of each feature.
  """

  VERSION = tfds.core.Version("1.0.0")
  pkg_dir_path = epath.Path(__file__).parent
  READER: ClassVar[Reader]
  COLUMNS: ClassVar[Mapping[str, str]]
  FEATURES: ClassVar[Mapping[str, Any]]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(dict(self.FEATURES)),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    source = type(self).READER("", splits.NO_CUTS)
    return {
      _NAMES[key]: self._generate_examples(table)
      for key, table in source.splits.items()
    }

  def _generate_examples(self, table: Any) -> Iterator[tuple[int, Any]]:
    columns = table.read(*self.COLUMNS).columns
    for row in range(len(table)):
      yield (
        row,
        {
          name: self._encoded(name, columns[own][row])
          for own, name in self.COLUMNS.items()
        },
      )

  def _encoded(self, name: str, value: Any) -> Any:
    """Returns a value in a form that is written without TensorFlow."""
    feature = self.FEATURES[name]
    if isinstance(feature, tfds.features.Image):
      return _png(value)
    if isinstance(value, str):
      return value
    return np.asarray(value, feature.np_dtype)


def _png(image: np.ndarray) -> io.BytesIO:
  """Returns the file of a grey picture, uint8 [height, width, 1]."""
  from PIL import Image

  file = io.BytesIO()
  Image.fromarray(image[..., 0]).save(file, "PNG")
  file.seek(0)
  return file


class BitnetDigits(_Embedded):
  """The 8 x 8 handwritten digits of scikit-learn, with values from 0 to 16."""

  READER = staticmethod(embedded.digits)
  COLUMNS: ClassVar = {"inputs": "image", "labels": "label"}
  FEATURES: ClassVar = {
    "image": tfds.features.Image(shape=(8, 8, 1)),
    "label": tfds.features.ClassLabel(num_classes=10),
  }


class BitnetPydoc(_Embedded):
  """The help texts that come with Python."""

  READER = staticmethod(embedded.pydoc)
  COLUMNS: ClassVar = {"text": "text"}
  FEATURES: ClassVar = {"text": tfds.features.Text()}


class BitnetDocstrings(_Embedded):
  """The docstrings of Python's library, labeled by module."""

  READER = staticmethod(docstrings.read)
  COLUMNS: ClassVar = {"text": "text", "label": "label"}
  FEATURES: ClassVar = {
    "text": tfds.features.Text(),
    "label": tfds.features.ClassLabel(names=sorted(docstrings.MODULES)),
  }


class BitnetKarate(_Embedded):
  """Zachary's karate club, one graph whose nodes have classes."""

  READER = staticmethod(embedded.karate)
  COLUMNS: ClassVar = {name: name for name in ("edges", "features", "labels")}
  FEATURES: ClassVar = {
    "edges": tfds.features.Tensor(shape=(None, 2), dtype=np.int64),
    "features": tfds.features.Tensor(shape=(None, 34), dtype=np.float32),
    "labels": tfds.features.Tensor(shape=(None,), dtype=np.int64),
  }


class BitnetGraphs(_Embedded):
  """Random graphs, labeled by the generator that made them."""

  READER = staticmethod(random_graphs.read)
  COLUMNS: ClassVar = {name: name for name in ("edges", "num_nodes", "label")}
  FEATURES: ClassVar = {
    "edges": tfds.features.Tensor(shape=(None, 2), dtype=np.int64),
    "num_nodes": tfds.features.Scalar(np.int64),
    "label": tfds.features.ClassLabel(names=[*random_graphs.GENERATORS]),
  }


BUILDERS = {
  builder.name: builder
  for builder in (
    BitnetDigits,
    BitnetPydoc,
    BitnetDocstrings,
    BitnetKarate,
    BitnetGraphs,
    Planetoid,
  )
}


def build(name: str, data_dir: str | os.PathLike[str]) -> str:
  """Writes a set into a folder, without TensorFlow.

  Args:
    name: a name in `BUILDERS`.
    data_dir: the folder that `data.data_dir` or `TFDS_DATA_DIR` names.

  Returns:
    The folder of the set.

  Raises:
    ValueError: there is no such set.
  """
  from bitnet_jax import choices

  builder = choices.pick(BUILDERS, name, key="name")(
    data_dir=data_dir, file_format="array_record"
  )
  builder.download_and_prepare()
  return str(builder.data_path)
