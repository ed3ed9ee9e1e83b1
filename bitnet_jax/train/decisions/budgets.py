"""What the decisions about a run aim at: its length and the sizes of inputs."""

from typing import NamedTuple


class Budget(NamedTuple):
  """Bounds for decisions.

  Attributes:
    steps: most updates of a run on texts.
    short_steps: most updates of a run on arrays and graphs, which take less
      time each.
    epochs: most passes through the data, if they make ``fewest`` steps.
    fewest: fewest updates of a run.
    batch_size: most examples of an update.
    image_size: largest side of pictures, which larger ones are scaled to.
    vocab_size: most subword tokens of a trained vocabulary.
  """

  steps: int
  short_steps: int
  epochs: int
  fewest: int
  batch_size: int
  image_size: int
  vocab_size: int


# S takes minutes on two cores, M an hour there or minutes on an accelerator, L
# hours on accelerators.
BUDGETS = {
  "S": Budget(1_000, 3_000, 40, 200, 32, 64, 4_096),
  "M": Budget(10_000, 30_000, 60, 400, 64, 128, 8_192),
  "L": Budget(100_000, 200_000, 100, 1_000, 128, 224, 32_768),
}
