"""Ternary vision transformer on CIFAR-10, with crops and flips.

python experiments/train.py --config=configs/cifar10_vit.py \
  --workdir=runs/cifar10-vit
"""

from bitnet_jax.config import ConfigDict, base, pick_variant

VARIANTS = {
  "S": dict(hidden=64, num_layers=4, num_heads=4, mlp_width=256),
  "M": dict(hidden=128, num_layers=6, num_heads=4, mlp_width=512),
  "B": dict(hidden=256, num_layers=8, num_heads=8, mlp_width=1024),
}


def get_config(variant: str = "S") -> ConfigDict:
  sizes = pick_variant(VARIANTS, variant)
  c = base("classification", "vit")
  c.total_epochs = 20
  c.eval_every = c.checkpoint_every = c.statistics_every = 500
  c.steps_per_dispatch = 20
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
  c.model.update(
    patch=4,
    num_kv_heads=sizes["num_heads"],
    max_length=64,
    **sizes,
  )
  c.quant.rules = (("patches|head", "float"),)
  c.optim.warmup_steps = 300
  return c
