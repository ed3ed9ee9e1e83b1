"""How often simulated studies are right: from records to their verdicts."""

import json

import numpy as np
import pytest

from bitnet_jax import studies
from bitnet_jax.analysis import pairs, verdicts
from bitnet_jax.studies import page, records

REPEATS = 100
MARGIN = 0.01
README = f"""# Is it better?

Claims: 4

{page.PLAN_END}
{page.START}
{page.END}
"""


def findings(runs):
  """Returns three verdicts on the two precisions, over two widths."""
  cells = {}
  for width in runs.choices("width"):
    first, second = (
      runs.where(width=width, precision=name).by_seed("test/accuracy")
      for name in ("b158", "float32")
    )
    cells[f"width={width}"] = pairs.pair(first, second, diverged=0.1)
  found = [
    verdicts.verdict(
      rule,
      cells,
      claim=4,
      statement=rule,
      scale=runs.scale,
      margin=MARGIN,
      better="higher",
      combine=combine,
    )
    for rule in ("better", "no worse", "equal")
    for combine in ("mean", "all")
  ]
  return studies.Findings(found)


def simulate(rng, *, effect, seeds, noise=0.004):
  """Returns records of runs whose seeds matter more than their precision."""
  found = []
  for width in (8, 16):
    base = 0.8 + 0.02 * rng.normal(size=seeds)
    for name, shift in (("b158", effect), ("float32", 0.0)):
      for seed in range(seeds):
        accuracy = base[seed] + shift + noise * rng.normal()
        cell = {"precision": name, "width": width}
        found.append(
          {
            "schema": records.SCHEMA,
            "study": "simulated",
            "scale": "cpu",
            "case": f"{name},{width},{seed}",
            "cell": cell,
            "seed": seed,
            "metrics": {"test/accuracy": round(accuracy, 4)},
            "diverged": None,
            "plan": page.stamp(README),
          }
        )
  return found


@pytest.mark.parametrize("seeds", [5, pytest.param(10, marks=pytest.mark.slow)])
def test_verdicts_of_simulated_studies_are_right(seeds, tmp_path):
  (tmp_path / page.PAGE_FILE).write_text(README, encoding="utf-8")
  study = studies.Study(str(tmp_path / "run.py"), lambda *_: [], findings)
  rng = np.random.default_rng(seeds)

  def outcomes(effect):
    """Returns by rule how many of 100 repeats have each outcome."""
    counts = {rule: [] for rule in ("better", "no worse", "equal")}
    for _ in range(REPEATS):
      lines = map(json.dumps, simulate(rng, effect=effect, seeds=seeds))
      path = tmp_path / records.RESULTS_FILE
      path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
      for verdict in study.found("cpu", tmp_path)["verdicts"]:
        assert verdict["seeds"] == seeds
        counts[verdict["statement"]].append(verdict["outcome"])
    return {
      rule: {o: found.count(o) / 2 for o in verdicts.OUTCOMES}
      for rule, found in counts.items()
    }

  holds, not_, same, _ = verdicts.OUTCOMES
  better = outcomes(0.03)
  assert better["better"][holds] >= 95 and better["no worse"][holds] >= 95
  assert better["equal"][not_] >= 95
  worse = outcomes(-0.03)
  assert worse["better"][not_] >= 95 and worse["no worse"][not_] >= 95
  none = outcomes(0.0)
  # That a claim of "better" does not hold, or is equivalent, is right here.
  assert none["better"][holds] <= 5
  assert none["no worse"][not_] <= 5 and none["equal"][not_] <= 5
  if seeds == 10:
    assert none["better"][same] >= 95 and none["equal"][holds] >= 95


def test_a_study_of_the_others_reads_their_records(tmp_path):
  found = simulate(np.random.default_rng(0), effect=0.03, seeds=5)
  for name, text in [("one", README), ("two", README), ("older", "# Notes\n")]:
    folder = tmp_path / name
    folder.mkdir()
    (folder / page.PAGE_FILE).write_text(text, encoding="utf-8")
  for record in found:
    records.append(tmp_path / "one" / records.RESULTS_FILE, record)
  # It has no plan, so it is no study whose records count.
  (tmp_path / "older" / records.RESULTS_FILE).write_text('{"schema": "x"}\n')
  path = str(tmp_path / "two" / "run.py")
  study = studies.Study(path, lambda *_: [], findings, others=True)
  study.run(scale="cpu", workdir=tmp_path / "runs")
  drawn = json.loads((tmp_path / "two" / "findings.json").read_text())
  assert drawn["records"] == len(found) and drawn["study"] == "two"
  assert drawn["verdicts"][0]["outcome"] == verdicts.OUTCOMES[0]
  with pytest.raises(ValueError, match="no case of the scale"):
    study.run(scale="cpu", workdir=tmp_path / "runs", only="width")
  alone = studies.Study(path, lambda *_: [], findings)
  with pytest.raises(ValueError, match="no case of the scale"):
    alone.run(scale="cpu", workdir=tmp_path / "runs")
