"""Compares finished runs, by their folders alone.

bitnet-jax compare --figures=figures --csv=table.csv runs/*

Runs that differ by their seed only form a group. Prints a table in Markdown:
the keys of the config that differ between groups, the mean over seeds with its
95 % t-interval, and the difference to the baseline in runs with the same seed,
with the 95 % interval and the p-value of a paired t-test. Runs of different
data or splits get tables of their own. A folder of runs, such as that of a
sweep, stands for all runs in it.
"""

import sys

from absl import flags

from bitnet_jax.programs import comparing

POSITIONAL = "RUN ..."
_BASELINE = flags.DEFINE_string(
  "baseline",
  None,
  "Group that others are compared to, such as quant.recipe=float; by default"
  " that of the first run.",
)
_METRIC = flags.DEFINE_list(
  "metric",
  None,
  "Metrics, such as test/loss,test/accuracy; by default checkpoint.metric of"
  " the test split.",
)
_CHECKPOINT = flags.DEFINE_enum(
  "checkpoint",
  "last",
  comparing.CHECKPOINTS,
  "Checkpoint of each run that is compared.",
)
_CSV = flags.DEFINE_string("csv", None, "File to write the table to, as CSV.")
_FIGURES = flags.DEFINE_string(
  "figures",
  None,
  "Folder for figures: metrics over steps, metrics over sizes, and fractions of"
  " codes, in light and dark.",
)


def main(argv):
  """Prints the table, and writes what else is asked for."""
  if len(argv) < 2:
    raise ValueError(
      "no run is given; name run folders, or a folder of them: compare runs/*"
    )
  found = comparing.compare(
    argv[1:],
    baseline=_BASELINE.value,
    metrics=_METRIC.value or (),
    checkpoint=_CHECKPOINT.value,
  )
  for note in found.notes:
    print(note, file=sys.stderr)
  print(found.markdown())
  if _CSV.value is not None:
    comparing.write_csv(found, _CSV.value)
  if _FIGURES.value is not None:
    for line in comparing.draw(found, _FIGURES.value):
      print(line, file=sys.stderr)
