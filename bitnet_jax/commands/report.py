"""Writes all studies as a static HTML site, or shows live runs.

bitnet-jax report --studies=experiments --output=report
bitnet-jax report --studies=experiments --output=report --records=mine.jsonl
bitnet-jax report --watch=runs

The site opens from disk: `report/index.html`. It has all verdicts, studies and
records, and a leaderboard. --records adds records of others, which must fit the
schema (`report/record.schema.json`). --watch serves a page of the runs below a
folder on this machine only, until Ctrl-C; it changes nothing.
"""

import sys

from absl import flags

from bitnet_jax import report
from bitnet_jax.extras import need
from bitnet_jax.files import local_path

_STUDIES = flags.DEFINE_string(
  "studies", "experiments", "Folder with one folder a study."
)
_OUTPUT = flags.DEFINE_string(
  "output",
  None,
  "Folder of the site: absent, empty, or with an earlier site, which is"
  " replaced.",
)
_RECORDS = flags.DEFINE_multi_string(
  "records",
  [],
  "File of records of others, one JSON object a line; repeatable.",
)
_WATCH = flags.DEFINE_string(
  "watch", None, "Folder of runs to show live, instead of a site."
)
_PORT = flags.DEFINE_integer(
  "port",
  0,
  "Port of --watch; 0 takes a free one.",
  lower_bound=0,
  upper_bound=65535,
)


def main(argv):
  """Writes the site, or serves the page of live runs."""
  del argv
  output, watched = _OUTPUT.value, _WATCH.value
  if (output is None) == (watched is None):
    raise ValueError("exactly one of --output and --watch is required")
  if watched is not None:
    _watch(watched)
  if output is None:
    return
  found = report.build(_STUDIES.value, output, _RECORDS.value)
  for note in found.notes:
    print(note, file=sys.stderr)
  runs = sum(len(study.runs) for study in found.studies)
  page = local_path(output) / "index.html"
  print(f"{page}: {len(found.studies)} studies, {runs} records")


def _watch(folder: str) -> None:
  """Serves the page of live runs until Ctrl-C."""
  need("--watch", "jinja2", "plotly", extra="report")
  from bitnet_jax.report import watching

  with watching.Server(folder, _PORT.value) as server:
    print(f"{server.address} shows {folder}; Ctrl-C ends it", flush=True)
    server.serve_forever()
