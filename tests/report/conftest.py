"""A site of synthetic studies, and what its pages and scripts say."""

import html.parser
import json
import re
from typing import NamedTuple

import pytest

from bitnet_jax import report
from tests.report import synthetic


class Page(html.parser.HTMLParser):
  """The elements of a page: tag, attributes and text of each, in order."""

  def __init__(self, text):
    super().__init__()
    self.text, self.elements, self._open = text, [], []
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    parents = [element["tag"] for element in self._open]
    element = {"tag": tag, **dict(attributes), "text": "", "in": parents}
    self.elements.append(element)
    if tag not in ("meta", "link", "input", "br", "line", "circle"):
      self._open.append(element)

  def handle_startendtag(self, tag, attributes):
    self.elements.append({"tag": tag, **dict(attributes), "text": "", "in": []})

  def handle_endtag(self, tag):
    while self._open and self._open.pop()["tag"] != tag:
      pass

  def handle_data(self, data):
    for element in self._open:
      element["text"] += data

  def all_of(self, tag):
    """Returns the elements of a tag."""
    return [element for element in self.elements if element["tag"] == tag]


class Site(NamedTuple):
  """A site: its folder and what ``build`` found."""

  folder: object
  found: object

  def page(self, name):
    """Returns a page."""
    return Page((self.folder / name).read_text(encoding="utf-8"))

  def pages(self):
    """Returns all pages by file name."""
    return {
      path.name: self.page(path.name) for path in self.folder.glob("*.html")
    }

  def data(self, name):
    """Returns what a script of the folder "data" adds."""
    text = (self.folder / "data" / f"{name}.js").read_text(encoding="utf-8")
    head, content = re.fullmatch(
      r'bitnetReport\.add\(("[^"]*"),(.*)\);\n', text
    ).groups()
    return json.loads(head), json.loads(content)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
  """Returns a site of three studies with 96 records."""
  root = tmp_path_factory.mktemp("report")
  studies = synthetic.write(root / "studies", studies=3, records=96, layers=2)
  found = report.build(studies, root / "site")
  return Site(root / "site", found)


@pytest.fixture
def studies(tmp_path):
  """Returns a folder with one study of four records."""
  return synthetic.write(tmp_path / "studies", studies=1, records=4, layers=1)
