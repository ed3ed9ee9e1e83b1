"""Loads labeled arrays: images or feature vectors."""

import numpy as np

from bitnet_jax.data import splits
from bitnet_jax.data.sources import class_folders, folder, registry, tfds
from bitnet_jax.data.splits import Dataset, Split

# Readers of pictures, with the options that they take.
_OPTIONS = {
  folder.read: ("image_size", "image_fit"),
  tfds.read_images: ("image_size", "image_fit"),
}


def load(
  source: str,
  cuts: splits.Cuts = splits.NO_CUTS,
  *,
  num_classes: int | None = None,
  image_size: int | None = None,
  image_fit: str = "crop",
) -> Dataset[Split]:
  """Loads arrays with their labels, see `Cuts` for the splits.

  Args:
    source: `embedded:digits` (uint8 [n, 8, 8, 1], 0 to 16), `embedded:xor`
      (float32 [n, 4]: is exactly one of the first two bits set?), `tfds:NAME`
      (a prepared set), `file:PATH.npz` (see `npz_arrays.read`) or `folder:PATH`
      (pictures by class, see `folder.read`).
    cuts: for splits that the source lacks.
    num_classes: number of classes; by default what the source says.
    image_size: side of square images, for `folder:` and `tfds:`.
    image_fit: how images become square, see `pictures.read`.

  Raises:
    ValueError: an argument or something in the data is wrong.
  """
  read, rest = registry.find("arrays", source)
  for key, value in (("num_classes", num_classes), ("image_size", image_size)):
    if value is not None and value < 1:
      raise ValueError(f"{key} must be positive, it is {value}")
  found = read(
    rest,
    cuts,
    **_options_of(read, source, image_size=image_size, image_fit=image_fit),
  )
  columns = {
    key: table.read("inputs", "labels").columns
    for key, table in found.splits.items()
  }
  names = found.class_names.get("labels", ())
  if read is folder.read and num_classes not in (None, len(names)):
    raise ValueError(
      f"num_classes={num_classes}, but {source} has {len(names)} classes:"
      f" {class_folders.listed(names)}; leave num_classes unset"
    )
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


def _options_of(read, source, **options):
  """Returns the options of a reader; a ValueError names one it lacks."""
  taken = _OPTIONS.get(read, ())
  defaults = {"image_size": None, "image_fit": "crop"}
  for key, value in options.items():
    if value != defaults[key] and key not in taken:
      raise ValueError(
        f"{key}={value} applies to folder: and tfds: sources only, not to"
        f" {source}"
      )
  return {key: options[key] for key in taken}
