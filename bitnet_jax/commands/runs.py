"""Lists the runs below a folder, newest first.

bitnet-jax runs [FOLDER]
bitnet-jax runs --json runs/sweep

A line has the run's folder, config, recipe, seed, last step, state, best value
of checkpoint.metric, date in UTC and size. A run is finished, running (a
process is at work in its folder), stopped (the command that started it resumes
it) or damaged. FOLDER is "runs" by default.
"""

import json

from absl import flags

from bitnet_jax.programs import run_list

POSITIONAL = "FOLDER"
_JSON = flags.DEFINE_bool(
  "json",
  False,  # noqa: FBT003
  "Print a JSON object a line instead of a table.",
)


def main(argv):
  """Prints the runs."""
  folders = argv[1:] or ["runs"]
  if len(folders) > 1:
    raise ValueError(f"one folder is listed, not {len(folders)}: {folders}")
  found = run_list.list_runs(folders[0])
  if _JSON.value:
    for run in found:
      print(json.dumps(run, ensure_ascii=False))
  elif found:
    print(run_list.table(found))
    for run in found:
      if run["damage"]:
        print(f"{run['name']} is damaged: {run['damage']}")
  else:
    print(f"{folders[0]} holds no runs")
