"""Ternary CNN of about 100 thousand parameters on MNIST.

Reads the prepared TFDS data set, or an .npz file:

python experiments/train.py --config=configs/mnist_cnn.py \
  --workdir=runs/mnist-cnn \
  --config.data.source=file:$DATA/mnist/mnist.npz
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(channels=(16, 32, 64), dense_width=128),
  "B": dict(channels=(32, 64, 128), dense_width=256),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "cnn")
  c.total_epochs = 10
  c.log_every = 100
  c.eval_every = c.checkpoint_every = c.statistics_every = 500
  c.data.update(
    source="tfds:mnist",
    batch_size=128,
    eval_batch_size=512,
    num_classes=10,
    valid_fraction=0.05,
    test_fraction=0.2,
  )
  c.model.update(dropout=0.1, **sizes)
  c.quant.rules = (("head", "float"),)
  c.optim.learning_rate = 2e-3
  return c
