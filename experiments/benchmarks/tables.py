"""Markdown tables of benchmark records."""

import pathlib
from collections.abc import Mapping, Sequence

from bitnet_jax.train.folder import records

# How tables show labels that older records have.
_RENAMED = {
  "XLA alone": "without kernels",
  "gradient by the input": "input gradient",
  "gradient by the weight": "weight gradient",
  "gradient by what is normalized": "norm gradient",
}


def table(suite: str, files: Sequence[pathlib.Path]) -> str:
  """Returns the ratios of a suite in several runs, side by side.

  Args:
    suite: which records to show.
    files: JSON lines, one file per run; times are those of the first file. If a
      case was recorded twice, the later record counts.

  Raises:
    ValueError: if no record is of the suite, or a file lacks a case or a ratio
      of the first file.
  """
  first, *others = runs = [_cases(suite, file) for file in files]
  if not first:
    raise ValueError(f"no times of the suite {suite!r} are in {files[0]}")
  for file, run in zip(files[1:], others, strict=True):
    for case, record in first.items():
      there = run[case]["ratios"].keys() if case in run else set()
      if missing := record["ratios"].keys() - there:
        raise ValueError(f"{file} lacks {sorted(missing)} of {case!r}")
  headings = [f"run {n}" for n in range(1, len(files) + 1)]
  rows = [
    f"| case | ratio | ms in run 1 | {' | '.join(headings)} |",
    "|---|---|---:|" + "---:|" * len(files),
  ]
  for case, record in first.items():
    times = record["milliseconds"]
    for ratio in record["ratios"]:
      shown = " / ".join(
        _number(times[n]["median"]) for n in ratio.split(" / ")
      )
      found = [_quartiles(run[case]["ratios"][ratio]) for run in runs]
      rows.append(f"| {' | '.join([case, ratio, shown, *found])} |")
  text = "\n".join(rows)
  for before, now in _RENAMED.items():
    text = text.replace(before, now)
  return text


def _cases(suite: str, file: pathlib.Path) -> dict[str, Mapping]:
  if not file.is_file():
    raise ValueError(f"{file} does not exist")
  return {
    record["case"]: record
    for record in records.load(file)
    if record.get("suite") == suite and "ratios" in record
  }


def _quartiles(ratio: Mapping[str, float]) -> str:
  digits = ".2f" if ratio["median"] >= 0.1 else ".2g"
  median, q1, q3 = (format(ratio[k], digits) for k in ("median", "q1", "q3"))
  return f"{median} ({q1} to {q3})"


def _number(x: float) -> str:
  return f"{x:,.0f}" if x >= 1000 else f"{x:.1f}" if x >= 10 else f"{x:.3g}"
