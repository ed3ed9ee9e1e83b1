"""Ternary CNN of about 2.2 million parameters on CIFAR-10.

Reads the prepared TFDS data set, or an .npz file:

python experiments/train.py --config=configs/cifar10_cnn.py \
  --workdir=runs/cifar10-cnn \
  --config.data.source=file:$DATA/cifar10_subset/cifar10_subset.npz
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(channels=(16, 32, 64), dense_width=128),
  "B": dict(channels=(32, 64, 128), dense_width=1024),
}


def get_config(variant: str = "B") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "cnn")
  c.total_epochs = 30
  c.log_every = 100
  c.eval_every = c.checkpoint_every = c.statistics_every = 500
  c.data.update(
    source="tfds:cifar10",
    batch_size=128,
    eval_batch_size=512,
    num_classes=10,
    valid_fraction=0.05,
    test_fraction=0.2,
    random_crop=4,
    random_flip=True,
  )
  c.model.update(dropout=0.2, **sizes)
  c.quant.rules = (("head", "float"),)
  return c
