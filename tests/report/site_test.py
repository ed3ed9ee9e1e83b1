"""The site: its links, its numbers, its text, and the folder that it is in."""

import json
import re
import urllib.parse

import pytest

from bitnet_jax import report
from bitnet_jax.report import links, pages
from bitnet_jax.report import site as written
from tests.report import synthetic
from tests.report.conftest import Site


def _fields(address):
  return dict(urllib.parse.parse_qsl(address.partition("#")[2]))


def _records(site, fields):
  """Returns the rows that the page of records shows for an address."""
  _, index = site.data(f"{fields['study']}.index")
  where = index["columns"].index("cell")
  wanted = {k[5:]: v for k, v in fields.items() if k.startswith("cell.")}
  return [
    row
    for row in index["rows"]
    if wanted.items()
    <= dict(zip(index["cells"], row[where], strict=True)).items()
  ]


def test_every_link_leads_to_a_page_and_every_number_to_records(site):
  found = site.pages()
  numbers = 0
  for name, page in found.items():
    for link in page.all_of("a"):
      target, _, fragment = link["href"].partition("#")
      is_own = not target
      target = urllib.parse.unquote(target) or name
      assert (site.folder / target).is_file(), link
      if target == links.RECORDS_PAGE and fragment and not is_own:
        assert _records(site, _fields(link["href"])), link
        numbers += 1
      elif fragment:
        ids = {e.get("id") for e in found[target].elements}
        assert fragment in ids, link
    for element in page.all_of("script") + page.all_of("link"):
      source = element.get("src") or element["href"]
      assert source == "data:," or (site.folder / source).is_file(), source
  assert numbers > 100


def test_every_number_of_findings_is_linked(site):
  text = site.page("study-study_1.html").text
  table = text[text.index('id="table-means"') :]
  table = table[: table.index("</table>")]
  entries = re.findall(r"<td class=\"right\"[^>]*>(.*?)</td>", table)
  assert len(entries) == 32
  assert all(entry.startswith('<a class="num" href="') for entry in entries)
  (effect,) = re.findall('<span class="effect">(.*?) <span', text)[:1]
  assert effect.startswith('<a class="num" href="records.html#study=study_1')
  assert effect.endswith(">\u22120.0123</a>")
  # Of a figure, each value and interval, but not those of its axes.
  figure = text[
    text.index('id="figure-lines"') : text.index('id="figure-bars"')
  ]
  rows = figure.count('<tr><th scope="row">')
  assert figure.count('<a class="num"') == 2 * rows == 64


def test_rows_of_a_table_lead_to_the_records_of_their_cell(site):
  page = site.page("study-study_1.html")
  (link,) = {
    e["href"]
    for e in page.all_of("a")
    if e["text"] == "0.902" and "b158_median" in e["href"]
  }
  assert _fields(link) == {
    "study": "study_1",
    "cell.rate": "0.01",
    "cell.precision": "b158_median",
  }
  assert len(_records(site, _fields(link))) == 2


def test_every_study_verdict_and_record_is_shown(site):
  page = site.page("index.html")
  for study in site.found.studies:
    assert links.to_study(study) in {e["href"] for e in page.all_of("a")}
    assert study.title in page.text
    for verdict in study.verdicts:
      assert verdict["statement"] in page.text
    name, index = site.data(f"{study.slug}.index")
    assert name == f"{study.slug}/index"
    assert [row[0] for row in index["rows"]] == [run.name for run in study.runs]
    _, chunk = site.data(f"{study.slug}.0")
    assert [item["line"] for item in chunk] == [run.line for run in study.runs]
    assert chunk[0]["record"] == json.loads(json.dumps(study.runs[0].record))
  _, entries = site.data("studies")
  assert [e["runs"] for e in entries] == [32, 32, 32]


def test_verdicts_come_first_and_in_the_order_of_their_claims(site):
  page = site.page("index.html")
  table = page.all_of("table")[0]
  assert table["id"] == "verdicts"
  claims = [
    e["text"] for e in page.all_of("td") if e.get("data-label") == "Claim"
  ]
  assert claims == ["1", "2", "3", "4", "5", "6", "outside-1"]


def test_filters_offer_families_recipes_and_claims(site):
  page = site.page("index.html")
  options = {e["text"] for e in page.all_of("option")}
  assert {
    "mlp",
    "cnn",
    "vit",
    "float32",
    "bfloat16",
    "b158",
    "outside-1",
  } <= options
  rows = [e for e in page.all_of("tr") if "data-recipe" in e]
  assert json.loads(rows[0]["data-family"]) == ["mlp"]
  assert json.loads(rows[0]["data-claim"]) == ["1"]


def test_tables_have_captions_and_headings_with_scopes(site):
  for name, page in site.pages().items():
    heads = [e for e in page.all_of("th")]
    assert all(e.get("scope") in ("col", "row") for e in heads), name
    tables = [e for e in page.all_of("table") if "prose" not in f"{e['in']}"]
    assert len(page.all_of("caption")) >= len(tables) - page.text.count(
      "<h2>Plan"
    ), name
    assert [e["tag"] for e in page.elements if e["tag"] == "h1"] == ["h1"], name
    assert page.all_of("html")[0]["lang"] == "en"


def test_pages_run_no_script_of_their_own_text(site):
  for name, page in site.pages().items():
    policy = [e for e in page.all_of("meta") if e.get("http-equiv")]
    assert "default-src 'none'; script-src 'self' file:" in policy[0]["content"]
    assert all(e["text"] == "" and e["src"] for e in page.all_of("script")), (
      name
    )
    for element in page.elements:
      assert not [k for k in element if k.startswith("on")], element


def test_plan_and_remarks_are_shown_without_local_links_and_html(site):
  page = site.page("study-study_0.html")
  assert "Written before the runs" in page.text
  assert "See the glossary and a figure." in page.text
  assert "It ended &lt;b&gt;early&lt;/b&gt; &amp; well." in page.text
  assert "stale" not in page.text


def test_text_from_files_is_escaped(tmp_path):
  bad = "<script>alert(1)</script>\"'&"
  studies = synthetic.write(tmp_path / "studies", studies=1, records=4)
  folder = studies / "study_0"
  found = json.loads((folder / "findings.json").read_text())
  found["title"] = bad
  found["verdicts"][0] |= {"statement": bad, "reason": bad, "unit": bad}
  found["verdicts"][0]["cells"][0]["name"] = bad
  found["tables"][0]["rows"][0][1] = bad
  found["figures"][0]["title"] = found["figures"][0]["series"][0]["name"] = bad
  (folder / "findings.json").write_text(json.dumps(found))
  more = synthetic.record(bad, {"precision": bad, bad: 1}, 7)
  more["config"]["data"]["source"] = more["config"]["quant"]["recipe"] = bad
  more["config"]["model"]["name"] = bad
  with (folder / "results.jsonl").open("a") as file:
    file.write(json.dumps(more) + "\n" + "<script>")
  folder.rename(studies / "a <b>&'%#")
  made = Site(tmp_path / "site", report.build(studies, tmp_path / "site"))
  for path in made.folder.rglob("*.*"):
    if path.parent.name != "assets":
      assert "<script>" not in path.read_text(encoding="utf-8"), path
  for page in made.pages().values():
    for link in page.all_of("a"):
      target = urllib.parse.unquote(link["href"].partition("#")[0])
      assert not target or (made.folder / target).is_file(), link


def test_second_site_replaces_the_first_and_keeps_other_files(
  studies, tmp_path
):
  output = tmp_path / "site"
  report.build(studies, f"{output}")
  (output / "notes.txt").write_text("mine")
  (studies / "study_0").rename(studies / "renamed")
  report.build(f"{studies}", output)
  assert (output / "notes.txt").read_text() == "mine"
  assert (output / "study-renamed.html").exists()
  assert not (output / "study-study_0.html").exists()
  assert not (output / "data" / "study_0.index.js").exists()
  manifest = json.loads((output / written.MANIFEST_FILE).read_text())
  made = {
    f"{path.relative_to(output)}"
    for path in output.rglob("*")
    if path.is_file()
  }
  assert made == {*manifest["files"], "notes.txt", written.MANIFEST_FILE}


def test_folder_of_other_files_is_refused_unchanged(studies, tmp_path):
  output = tmp_path / "site"
  output.mkdir()
  (output / "index.html").write_text("mine")
  with pytest.raises(FileExistsError, match="holds other files and no report"):
    report.build(studies, output)
  assert [path.name for path in output.iterdir()] == ["index.html"]
  with pytest.raises(FileExistsError, match="is no folder"):
    report.build(studies, output / "index.html")


def test_other_file_in_the_place_of_a_new_page_is_refused(studies, tmp_path):
  output = tmp_path / "site"
  report.build(studies, output)
  (output / "study-new.html").write_text("mine")
  (studies / "study_0").rename(studies / "new")
  with pytest.raises(FileExistsError, match=r"study-new\.html is no file of a"):
    report.build(studies, output)
  assert (output / "study-new.html").read_text() == "mine"
  assert (output / "study-study_0.html").exists()


def test_manifest_cannot_name_files_elsewhere(studies, tmp_path):
  output = tmp_path / "site"
  report.build(studies, output)
  (tmp_path / "mine.js").write_text("mine")
  (output / "keep.txt").write_text("mine")
  path = output / written.MANIFEST_FILE
  found = json.loads(path.read_text())
  names = (
    "../mine.js",
    "data/../../mine.js",
    "keep.txt",
    3,
    f"{tmp_path}/mine.js",
  )
  found["files"] += names
  path.write_text(json.dumps(found))
  report.build(studies, output)
  assert (tmp_path / "mine.js").exists()
  assert (output / "keep.txt").exists()


def test_folder_of_data_that_leads_elsewhere_is_refused(studies, tmp_path):
  output, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
  report.build(studies, output)
  (output / "data").rename(elsewhere)
  (output / "data").symlink_to(elsewhere)
  with pytest.raises(FileExistsError, match="is no folder of a report"):
    report.build(studies, output)


@pytest.mark.parametrize(
  ("value", "digits", "text"),
  [
    (None, None, "\u2013"),
    ("b158", 2, "b158"),
    (-0.5, None, "\u22120.5"),
    (0.123456, None, "0.1235"),
    (0.123456, 2, "0.12"),
    (12345, None, "12\u2009345"),
    (True, None, "true"),
    (1e-7, None, "1e\u221207"),
  ],
)
def test_numbers_are_written_for_readers(value, digits, text):
  assert pages.number(value, digits) == text
