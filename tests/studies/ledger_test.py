"""The table of all verdicts."""

import json

import pytest

from bitnet_jax.studies import ledger


def write(root, slug, claims, outcomes):
  """Writes findings with verdicts, given as pairs of claim and outcome."""
  found = {
    "title": f"Is {slug} so?",
    "records": 1234,
    "claims": claims,
    "verdicts": [{"claim": c, "outcome": outcome} for c, outcome in outcomes],
  }
  (root / slug).mkdir(parents=True)
  path = root / slug / "findings.json"
  path.write_text(json.dumps(found), encoding="utf-8")


def test_studies_come_by_claim_and_verdicts_are_counted(tmp_path):
  root = tmp_path / "experiments"
  open_ = "not decidable at this scale"
  write(root, "a", ["outside-1"], [("outside-1", "holds")])
  verdicts = [(7, open_), (7, "holds"), (3, "does not hold"), (7, open_)]
  write(root, "b", [3, 7], verdicts)
  write(root, "c", [2], [(2, "equivalent within the margin")])
  (root / "without").mkdir()
  readme = tmp_path / "README.md"
  block = f"{ledger.START}\nold\n{ledger.END}\n"
  readme.write_text(f"# T\n{block}\nrest\n", encoding="utf-8")
  ledger.write(root, readme)
  head, rule, *rows, end, empty, rest = readme.read_text().splitlines()[2:]
  assert head.count("|") == rule.count("|")
  assert rows == [
    "| [Is c so?](experiments/c/README.md) | 1,234 | 2: equivalent |",
    "| [Is b so?](experiments/b/README.md) | 1,234 |"
    " 3: does not hold; 7: open (2), holds |",
    "| [Is a so?](experiments/a/README.md) | 1,234 | outside-1: holds |",
  ]
  assert (end, empty, rest) == (ledger.END, "", "rest")


def test_page_without_place_and_folder_without_findings_are_named(tmp_path):
  with pytest.raises(ValueError, match="has no study"):
    ledger.table(tmp_path)
  write(tmp_path, "a", [1], [(1, "holds")])
  readme = tmp_path / "README.md"
  readme.write_text("nothing\n", encoding="utf-8")
  with pytest.raises(ValueError, match=r"README\.md must have the lines"):
    ledger.write(tmp_path, readme)
  assert readme.read_text(encoding="utf-8") == "nothing\n"
