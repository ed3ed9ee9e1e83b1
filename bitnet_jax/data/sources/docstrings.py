"""The source embedded:docstrings: Python's docstrings, labeled by module."""

import ast
import pathlib
import sysconfig

from bitnet_jax.data import splits
from bitnet_jax.data.sources.tables import Source, Table

# Modules of every Python with at least 150 docstrings.
MODULES = (
  "_pydecimal",
  "asyncio",
  "email",
  "importlib",
  "logging",
  "multiprocessing",
  "unittest",
  "xml",
)
_LEAST_WORDS = 4
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def read(name: str, cuts: splits.Cuts) -> Source:
  """Reads the docstrings of modules, classes and functions from source files.

  Nothing is imported. Docstrings of fewer than four words and repetitions are
  left out.

  Returns:
    A table with the columns "text" and "label", the name of the module.

  Raises:
    FileNotFoundError: this Python comes without source files.
  """
  library = pathlib.Path(sysconfig.get_path("stdlib"))
  modules: dict[str, str] = {}
  for module in MODULES:
    file = library / f"{module}.py"
    files = [file] if file.is_file() else (library / module).rglob("*.py")
    texts = [text for file in sorted(files) for text in _docstrings(file)]
    if not texts:
      raise FileNotFoundError(
        "embedded:docstrings reads the sources of Python's library, but"
        f" {library} has none of {module}"
      )
    for text in texts:
      modules.setdefault(text, module)
  table = Table(
    columns={"text": list(modules), "label": list(modules.values())},
    name="embedded:docstrings",
    unit="docstring",
    first=0,
  )
  return Source(splits={"train": table}, texts=("text",), label="label")


def _docstrings(file):
  """Yields the docstrings of a file: of the module, and what it defines."""
  nodes = [ast.parse(file.read_bytes())]
  while nodes:
    node = nodes.pop()
    text = ast.get_docstring(node)
    if text and len(text.split()) >= _LEAST_WORDS:
      yield text
    nodes.extend(
      inner for inner in node.body if isinstance(inner, _DEFINITIONS)
    )
