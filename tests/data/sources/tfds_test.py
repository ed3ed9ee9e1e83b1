import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from bitnet_jax.data.views import arrays
from tests.data import loading


def encoded(image):
  """PNG bytes, which can be prepared without TensorFlow."""
  stream = io.BytesIO()
  mode = image[..., 0] if image.shape[-1] == 1 else image
  Image.fromarray(mode).save(stream, "PNG")
  stream.seek(0)
  return stream


def prepare(folder, examples, *, shape, **features):
  """Prepares a set "blobs" with three classes; examples by split."""
  features = {
    "image": tfds.features.Image(shape=shape),
    "label": tfds.features.ClassLabel(num_classes=3),
  } | features
  features = {name: value for name, value in features.items() if value}
  with tfds.core.registered.skip_registration():

    class Blobs(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version("1.2.0")
      pkg_dir_path = epath.Path(folder)

      def _info(self):
        return self.dataset_info_from_configs(
          features=tfds.features.FeaturesDict(features)
        )

      def _split_generators(self, _):
        return {name: self._generate_examples(name) for name in examples}

      def _generate_examples(self, split):
        for i, (image, label) in enumerate(examples[split]):
          values = {"image": encoded(image), "label": label}
          yield i, {name: values[name] for name in features}

  tfds.disable_progress_bar()
  Blobs(data_dir=folder, file_format="array_record").download_and_prepare()


def blobs(count, shape=(4, 6, 3)):
  """Images filled with their number, and labels that go round."""
  return [(np.full(shape, i, np.uint8), i % 3) for i in range(count)]


def load(folder, **options):
  options = dict(valid_fraction=0.0, test_fraction=0.0) | options
  return loading.load(
    arrays.load, "tfds:blobs", data_dir=str(folder), **options
  )


def pixels(split):
  return sorted(split.inputs[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_set_is_read_into_memory(tmp_path, channels):
  shape = (4, 6, channels)
  prepare(
    tmp_path, {"train": blobs(30, shape), "test": blobs(6, shape)}, shape=shape
  )
  dataset = load(tmp_path)
  assert set(dataset.splits) == {"train", "test"}
  train = dataset.splits["train"]
  assert train.inputs.shape == (30, *shape)
  assert train.inputs.dtype == np.uint8
  assert train.labels.dtype == np.int32
  assert pixels(train) == list(range(30))
  np.testing.assert_array_equal(train.labels, train.inputs[:, 0, 0, 0] % 3)
  assert len(dataset.splits["test"].labels) == 6
  assert dataset.num_classes == 3
  assert dataset.fingerprint == "tfds:blobs/1.2.0"


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_validation_stays_and_missing_test_is_cut_from_train(tmp_path, name):
  examples = {"train": blobs(30), name: blobs(5), "extra": blobs(3)}
  prepare(tmp_path, examples, shape=(4, 6, 3))
  splits = load(tmp_path, valid_fraction=0.5, test_fraction=0.2).splits
  sizes = {key: len(split.labels) for key, split in splits.items()}
  assert sizes == {"train": 24, "valid": 5, "test": 6}
  assert pixels(splits["valid"]) == list(range(5))


def test_images_of_different_shapes_are_scaled_and_cropped(tmp_path):
  wide = np.zeros((4, 12, 3), np.uint8)
  wide[:, 4:8] = 200  # the centre that is kept
  tall = np.zeros((24, 8, 3), np.uint8)
  tall[8:16] = 100
  prepare(tmp_path, {"train": [(wide, 0), (tall, 1)]}, shape=(None, None, 3))
  (train,) = load(tmp_path, image_size=4).splits.values()
  assert train.inputs.shape == (2, 4, 4, 3)
  by_label = train.inputs[np.argsort(train.labels)]
  assert (by_label[0] == 200).all()
  assert (by_label[1][1:3] == 100).all()
  # Scaling down blends the outermost rows with what is just outside.
  assert (by_label[1] > 80).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_one_shape_are_scaled_when_asked_to(tmp_path, channels):
  shape = (8, 8, channels)
  prepare(tmp_path, {"train": blobs(3, shape)}, shape=shape)
  (train,) = load(tmp_path, image_size=2).splits.values()
  assert train.inputs.shape == (3, 2, 2, channels)
  assert pixels(train) == [0, 1, 2]


def test_images_of_different_shapes_need_image_size(tmp_path):
  prepare(tmp_path, {"train": blobs(3)}, shape=(None, None, 3))
  with pytest.raises(ValueError, match=r"tfds:blobs: .* image_size must say"):
    load(tmp_path)


def test_set_without_train_is_an_error(tmp_path):
  prepare(tmp_path, {"test": blobs(3)}, shape=(4, 6, 3))
  with pytest.raises(ValueError, match="blobs has no split train, it has test"):
    load(tmp_path)


@pytest.mark.parametrize(
  ("features", "message"),
  [
    (dict(label=None), "has no feature label, it has image"),
    (dict(label=tfds.features.Scalar(np.int64)), "label must be a class label"),
    (
      dict(image=tfds.features.Image(shape=(4, 6, 3), dtype=np.uint16)),
      r"image must be uint8 .* uint16",
    ),
  ],
)
def test_other_features_are_errors(tmp_path, features, message):
  prepare(tmp_path, {"train": blobs(3)}, shape=(4, 6, 3), **features)
  with pytest.raises(ValueError, match=f"tfds:blobs.*{message}"):
    load(tmp_path)


def test_set_prepared_without_random_access_is_an_error(tmp_path):
  prepare(tmp_path, {"train": blobs(3)}, shape=(4, 6, 3))
  file = tmp_path / "blobs" / "1.2.0" / "dataset_info.json"
  info = json.loads(file.read_text()) | {"fileFormat": "tfrecord"}
  file.write_text(json.dumps(info))
  message = "blobs is prepared in .* without random access.*array_record"
  with pytest.raises(ValueError, match=message):
    load(tmp_path)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("mnist", "mnist is not prepared: looked in FOLDER/mnist/"),
    ("no_such_set", "no_such_set is neither .* knows nor .* in FOLDER"),
    ("mnist:9.9.9", "mnist:9.9.9 is neither .* knows nor .* in FOLDER"),
    ("not a name", "not a name is neither .* knows nor .* in FOLDER"),
  ],
)
def test_set_that_is_not_there_is_an_error_with_the_remedy(
  tmp_path, name, message
):
  message = f"tfds:{message}.*array_record.*data_dir or in TFDS_DATA_DIR"
  with pytest.raises(
    ValueError, match=message.replace("FOLDER", str(tmp_path))
  ):
    loading.load(
      arrays.load,
      f"tfds:{name}",
      valid_fraction=0.0,
      test_fraction=0.0,
      data_dir=str(tmp_path),
    )


@pytest.mark.parametrize(
  ("name", "shape", "num_classes"),
  [
    ("mnist", (28, 28, 1), 10),
    ("fashion_mnist", (28, 28, 1), 10),
    ("cifar10", (32, 32, 3), 10),
    ("cifar100", (32, 32, 3), 100),
  ],
)
def test_public_sets_are_read_as_they_are_defined(
  tmp_path, name, shape, num_classes
):
  builder = tfds.builder(name, data_dir=tmp_path)
  template = tfds.core.ShardedFileTemplate(
    data_dir=builder.data_path,
    dataset_name=name,
    filetype_suffix="array_record",
  )
  info = builder.info
  info.set_splits(
    tfds.core.splits.SplitDict(
      [
        tfds.core.SplitInfo(
          name=split,
          shard_lengths=[40],
          num_bytes=0,
          filename_template=template.replace(split=split),
        )
        for split in ("train", "test")
      ]
    )
  )
  builder.data_path.mkdir(parents=True)
  info.write_to_directory(builder.data_path)
  with tfds.testing.mock_data(num_examples=40, data_dir=str(tmp_path)):
    dataset = loading.load(
      arrays.load, f"tfds:{name}", valid_fraction=0.25, test_fraction=0.0
    )
  sizes = {key: len(split.labels) for key, split in dataset.splits.items()}
  assert sizes["test"] == 40
  assert sizes["train"] + sizes["valid"] == 40
  assert dataset.splits["train"].inputs.shape[1:] == shape
  assert dataset.num_classes == num_classes
  assert dataset.fingerprint == f"tfds:{name}/{builder.version}"
