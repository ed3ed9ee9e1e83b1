"""A TFDS builder for Planetoid's published files; imports TFDS."""

import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from bitnet_jax.data import splits
from bitnet_jax.data.sources import planetoid
from bitnet_jax.data.sources.tables import Records, Source

SPLIT = "full"  # The only one, with one example: the graph.

_HOW = (
  "Put the files ind.{name}.* of https://github.com/kimiyoung/planetoid (folder"
  " data) there; the set is prepared from them, without TensorFlow"
)
_MEMBERS = {
  "data": np.float32,
  "indices": np.int32,
  "indptr": np.int32,
  "shape": np.int64,
  "labels": np.int32,
  "has_label": np.bool_,
  "train_idx": np.int32,
  "val_idx": np.int32,
  "test_idx": np.int32,
}


class Planetoid(tfds.core.GeneratorBasedBuilder):
  """Citation networks, with the public split: Cora, CiteSeer, PubMed.

  One example holds a graph, its features as the parts of a sparse matrix; see
  `nodes.load` for the members.
  """

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS: ClassVar = [
    tfds.core.BuilderConfig(name=name) for name in planetoid.NAMES
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = _HOW.format(name="NAME")
  pkg_dir_path = epath.Path(__file__).parent

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Citation networks of Yang et al., 2016, 1603.08861.",
      features=tfds.features.FeaturesDict(
        {
          **{
            name: tfds.features.Tensor(shape=(None,), dtype=dtype)
            for name, dtype in _MEMBERS.items()
          },
          "edges": tfds.features.Tensor(shape=(None, 2), dtype=np.int64),
        }
      ),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    return {SPLIT: self._generate_examples(dl_manager.manual_dir)}

  def _generate_examples(self, path: epath.Path):
    name = self.builder_config.name
    members = planetoid.read(
      pathlib.Path(path), name, num_valid=planetoid.NUM_VALID
    )
    yield (
      name,
      {
        name: members[name].astype(feature.np_dtype)
        for name, feature in self.info.features.items()
      },
    )


def read_prepared(name: str, cuts: splits.Cuts) -> Source:
  """Reads a data set, preparing it first if needed.

  Args:
    name: "planetoid/cora", "planetoid/citeseer" or "planetoid/pubmed".
    cuts: `data_dir` is the folder of the prepared sets; by default
      `TFDS_DATA_DIR`, else the folder that tensorflow-datasets uses. The
      published files are looked for in `downloads/manual` there.

  Returns:
    One example with the members of a file, see `nodes.load`.

  Raises:
    FileNotFoundError: it is not prepared, and a published file is missing.
    ValueError: a published file is not as it must be.
  """
  config = name.removeprefix("planetoid/")
  builder = Planetoid(
    config=config, data_dir=cuts.data_dir, file_format="array_record"
  )
  if not builder.info.splits:
    manual = epath.Path(builder._data_dir_root) / "downloads" / "manual"
    files = [f"ind.{config}.{part}" for part in planetoid.PARTS]
    missing = [file for file in files if not (manual / file).exists()]
    if missing:
      raise FileNotFoundError(
        f"tfds:{name} is not prepared in {builder.data_dir}, and {manual} lacks"
        f" {', '.join(missing)}. {_HOW.format(name=config)}"
      )
    builder.download_and_prepare()
  (example,) = builder.as_data_source(split=SPLIT)
  return Source(
    splits={"train": Records(records=[dict(example)], name=f"tfds:{name}")},
    fingerprint=f"tfds:{builder.info.full_name}",
  )
