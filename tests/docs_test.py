"""What the pages name exists: files, folders, modules and names in them."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "bitnet_jax"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_PATH = re.compile(
  r"`((?:\w+/)+(?:\w+\.(?:py|md|sh|jsonl))?)`|`(\w+\.py)`", re.ASCII
)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)")
_MODULE = re.compile(r"\bbitnet_jax(?:\.\w+)+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page):
  for long, short in _PATH.findall(page.read_text(encoding="utf-8")):
    path = long or short
    places = [ROOT, PACKAGE, ROOT / "experiments", PACKAGE / "train"]
    assert any((place / path).exists() for place in places), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_their_names_exist(page):
  for name in _MODULE.findall(page.read_text(encoding="utf-8")):
    assert _exists(name.split(".")[1:]), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
  for target in _LINK.findall(page.read_text(encoding="utf-8")):
    assert (page.parent / target).exists(), target


def test_tables_of_the_architecture_list_every_folder():
  text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
  for pattern in ("*/__init__.py", "train/*/__init__.py", "data/*/__init__.py"):
    for path in PACKAGE.glob(pattern):
      folder = path.parent.relative_to(PACKAGE)
      assert f"`{folder}/" in text, folder


def _exists(names):
  """Whether dotted names lead to a module, or to a name in one."""
  place = PACKAGE
  for i, name in enumerate(names):
    if (place / name).is_dir():
      place = place / name
      continue
    module = place / f"{name}.py"
    rest = names[i + 1 :]
    if not module.is_file():
      module, rest = place / "__init__.py", names[i:]
    text = module.read_text(encoding="utf-8")
    return len(rest) <= 1 and all(re.search(rf"\b{n}\b", text) for n in rest)
  return True
