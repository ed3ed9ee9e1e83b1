"""The site in headless Chromium, where there is one.

With the environment variable BITNET_JAX_AXE, the path of ``axe.min.js`` of the
npm package axe-core, pages are checked for faults of accessibility, too.
"""

import html
import json
import os
import pathlib
import re
import shutil
import subprocess
import urllib.parse

import pytest

from tests.report.watching_test import served as served
from tests.report.watching_test import write_run as write_run

BROWSER = next(
  filter(None, map(shutil.which, ("chromium", "google-chrome"))), None
)
AXE = os.environ.get("BITNET_JAX_AXE")
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed"),
]
RUN = urllib.parse.quote("precision=b158,rate=0.01,seed=1")
PAGES = {
  "index": "index.html",
  "study": "study-study_0.html",
  "leaderboard": "leaderboard.html",
  "records": "records.html#study=study_0&cell.precision=b158",
  "run": f"run.html#study=study_0&run={RUN}",
}
MILD = ("minor", "moderate")  # as axe-core calls faults
CHECK = pathlib.Path(__file__).with_name("page_check.js")


@pytest.fixture(scope="module")
def checked(site, tmp_path_factory):
  """Returns a copy of the site with the check in each page."""
  folder = tmp_path_factory.mktemp("browser") / "site"
  shutil.copytree(site.folder, folder)
  shutil.copy(CHECK, folder / "assets" / "check.js")
  added = '<script src="assets/check.js"></script>'
  if AXE:
    shutil.copy(AXE, folder / "assets" / "axe.js")
    added += '<script src="assets/axe.js"></script>'
  for path in folder.glob("*.html"):
    text = path.read_text("utf-8")
    path.write_text(text.replace("<link", f"{added}<link", 1), "utf-8")
  return folder


def browse(address, profile, *options):
  """Returns what Chromium prints for a page."""
  command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu"]
  command += [f"--user-data-dir={profile}", *options, address]
  done = subprocess.run(command, capture_output=True, timeout=120, check=True)
  return done.stdout.decode()


@pytest.fixture(params=[1280, 390])
def look(request, checked, tmp_path):
  """Returns ``look(name)``: what the check found in a page."""

  def look(name):
    address = f"{checked.as_uri()}/{PAGES[name]}"
    size = f"--window-size={request.param},900"
    options = ("--dump-dom", "--virtual-time-budget=60000", size)
    shown = browse(address, tmp_path / "profile", *options)
    found = re.search('<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert found, shown[-3000:]
    return json.loads(html.unescape(found[1]))

  return look


@pytest.mark.parametrize("name", PAGES)
def test_page_works_from_disk(look, name):
  found = look(name)
  assert not found["errors"]
  assert found["wide"] <= found["width"]
  assert found["plots"] <= found["drawn"]
  assert not [
    fault for fault in found["axe"] if fault[1] in ("serious", "critical")
  ]
  assert not AXE or found["passes"] > 20
  if "ascending" in found and name != "records":
    (up, first), (down, second) = found["ascending"], found["descending"]
    assert (up, down) == ("ascending", "descending")
    values = [float(value) for value in first if value]
    assert values == sorted(values)
    assert [float(value) for value in second if value] == values[::-1]
  if name == "index":
    assert found["filtered"] == 2
  if name == "study":
    assert found["plots"] == 6
  if name == "records":
    assert (found["count"], found["records"]) == ("8 of 32 records", 8)
  if name == "run":
    assert found["title"] == "precision=b158,rate=0.01,seed=1"
    assert found["plots"] == 3
    for part in ("optim.learning_rate", "layer_1/kernel", "Line 27 of"):
      assert part in found["text"]


def test_pages_print(checked, tmp_path):
  target = tmp_path / "index.pdf"
  browse(
    f"{checked.as_uri()}/index.html",
    tmp_path / "profile",
    f"--print-to-pdf={target}",
  )
  assert target.read_bytes().startswith(b"%PDF")


def test_page_of_live_runs_shows_them(served, tmp_path):
  options = ("--dump-dom", "--virtual-time-budget=9000")
  shown = browse(served.address, tmp_path / "profile", *options)
  assert "sweep/a&lt;b&gt;&amp;ü</button>" in shown
  assert "2 runs, 0 of them running" in shown
