"""Loads labeled arrays: images or feature vectors."""

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.sources import registry, tfds
from bitnet_jax.data.splits import Dataset, Split


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  num_classes: int | None = None,
  image_size: int | None = None,
) -> Dataset[Split]:
  """Loads arrays with their labels, see `Cuts` for the splits.

  Args:
    source: `embedded:digits` (uint8 [n, 8, 8, 1], 0 to 16), `embedded:xor`
      (float32 [n, 4]: is exactly one of the first two bits set?), `tfds:NAME`
      (a prepared set) or `file:PATH.npz` (see `npz_arrays.read`).
    cuts: for splits that the source lacks.
    num_classes: number of classes; by default what the source says.
    image_size: side to which the images of `tfds:` are scaled and cropped.

  Raises:
    ValueError: an argument or something in the data is wrong.
  """
  read, rest = registry.find("arrays", source)
  for key, value in (("num_classes", num_classes), ("image_size", image_size)):
    if value is not None and value < 1:
      raise ValueError(f"{key} must be positive, it is {value}")
  options = {} if image_size is None else {"image_size": image_size}
  if options and read is not tfds.read_images:
    raise ValueError(
      f"image_size={image_size} applies to tfds: sources only, not to {source}"
    )
  found = read(rest, cuts, **options)
  columns = {
    key: table.read("inputs", "labels").columns
    for key, table in found.splits.items()
  }
  num_classes = num_classes or found.num_classes
  num_classes = num_classes or splits.count_classes(columns["train"]["labels"])
  arrays = {
    key: Split(
      inputs=np.asarray(column["inputs"]),
      labels=splits.check_labels(
        np.asarray(column["labels"]),
        num_classes=num_classes,
        where=f"{source}: y_{key}",
      ),
    )
    for key, column in columns.items()
  }
  return splits.make_dataset(
    arrays,
    cuts,
    source=source,
    num_classes=num_classes,
    class_names=found.names_of("labels", num_classes),
    features=found.features,
    fingerprint=found.fingerprint,
  )
