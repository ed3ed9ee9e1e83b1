"""Can a full-precision network become ternary without losing accuracy?

python experiments/mnist_switch/run.py --data=DATA/mnist/mnist.npz \
  --workdir=runs/switch

A CNN is trained on MNIST in full precision for four epochs. From its
checkpoint, training continues for two epochs with ternary weights: on the
labels only, with quantization phased in, or distilled from the full-precision
network. With the first seed the switch is also made within one run of six
epochs, with the optimizer state kept or reset. Runs in results.jsonl are
skipped; --table only prints the table of the README.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import pathlib
import sys

from absl import flags

from bitnet_jax.studies import unplanned as study
from bitnet_jax.train.folder import records

CONFIG = "configs/mnist_cnn.py"
BEFORE, AFTER = 4, 2  # epochs
STEPS_OF_EPOCH = 445  # 57,000 examples of training in batches of 128
SHARED = {
  "log_every": 10,
  "eval_every": 0,
  "checkpoint.keep_best": 0,
  # No norm in ternary layers, since the full-precision network has none.
  "quant.norm": "none",
}
RESULTS = pathlib.Path(__file__).parent / "results.jsonl"

_DATA = flags.DEFINE_string("data", None, "The file of images.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Which seeds.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table.")  # noqa: FBT003


def cases(data: str, root: pathlib.Path) -> list[study.Case]:
  """Returns the runs, each full-precision run before those started from it."""
  found = []
  for i, seed in enumerate(_SEEDS.value):
    shared = SHARED | {"data.source": f"file:{data}", "seed": int(seed)}
    full = shared | {
      "quant.recipe": "float",
      "quant.rules": (),
      "quant.norm": None,
      "total_epochs": BEFORE,
    }
    start = str(root / f"full precision-{seed}")
    after = shared | {"init_from": start, "total_epochs": AFTER}
    runs = {
      "full precision": full,
      "switched": after,
      "phased in": after | {"quant.phase_in.steps": STEPS_OF_EPOCH},
      "taught": after | {"distill.teacher": start},
    }
    if not i:
      within = shared | {
        "total_epochs": BEFORE + AFTER,
        "quant.phase_in.start": BEFORE * STEPS_OF_EPOCH,
      }
      runs["in one run, optimizer kept"] = within
      runs["in one run, optimizer reset"] = within | {
        "quant.phase_in.optimizer": "reset"
      }
    found += [
      study.Case(f"{name}-{seed}", CONFIG, overrides)
      for name, overrides in runs.items()
    ]
  return found


def table() -> str:
  """Returns the results as Markdown."""
  rows = [
    "| run | runs | test accuracy | spike of the loss | steps until recovery |",
    "|---|---:|---:|---:|---:|",
  ]
  groups: dict[str, list] = {}
  for record in records.load(RESULTS):
    groups.setdefault(record["case"].rpartition("-")[0], []).append(record)
  for name, found in groups.items():
    metrics = [record["metrics"] for record in found]
    accuracy = study.percent(m["test/accuracy"] for m in metrics)
    spike, recovery = (
      ", ".join(form.format(m[key]) for m in metrics if key in m)
      for key, form in (
        ("switch/spike", "{:.2f}"),
        ("switch/recovery_steps", "{:.0f}"),
      )
    )
    shown = {"taught": "distilled"}.get(name, name)
    rows.append(
      f"| {shown} | {len(found)} | {accuracy} | {spike} | {recovery} |"
    )
  return "\n".join(rows)


def main(argv):
  """Runs the missing runs, then prints the table."""
  del argv
  if not _TABLE.value:
    if _DATA.value is None or _WORKDIR.value is None:
      sys.exit("error: --data and --workdir are required without --table")
    root = pathlib.Path(_WORKDIR.value)
    study.run_missing(cases(_DATA.value, root), RESULTS, root)
  print(table())


if __name__ == "__main__":
  program.run(main)
