"""The project's vocabulary: plain words, and one word for each thing."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
READ = ("README.md", "CHANGELOG.md", "docs", "configs", "experiments")
PACKAGES = ("",)
# Words to avoid, parts of identifiers included, and what to write instead.
BANNED = {
  "filling": "padding",
  "pieces?": "subword tokens; parts",
  "sub-words?": "subword tokens",
  "(?:a|its|the|what) shares?(?! (?:a|one|the))|shares? of": "fraction",
  "sets? in(?=[.,;:)]|$)": "is phased in",
  "(?:in|under) (?:full )?force|all of quantization": "full; active",
  "leap(?:s|t|ed)?": "spike",
  "hidden (?:tokens?|bytes?)|to guess": "masked tokens",
  "taught|knows? (?:a|the|no) teacher": "distilled; uses a teacher",
  "xla alone|by kernels": "with native kernels, without",
  "says nothing without": "requires",
  "give either|give one of": "exactly one of A and B is required",
  "strangers?": "untrusted",
  "to the bit": "bit for bit",
  "roundings": "rounding; rounding errors",
  "(?:has|have|had) not(?=[.,;:)'\"])": "lacks; does not have",
  "nobody": "a sentence with a subject",
  "of before": "older; earlier",
  "go on|goes on|going on|went on": "continue; resume",
  "anew": "again",
  "of (?:itself|themselves)": "by itself",
  "made longer": "extended",
  "computes? otherwise": "does not reproduce the outputs",
  "namesakes?": "twin; the Flax layer",
}
# Labels of records that are not made again, names of code, and arguments of
# libraries; and by file the word of a library.
ALLOWED = (
  '"taught"',
  '" taught by "',
  "_TAUGHT_BY",
  '"XLA alone"',
  "ROUNDINGS",
  "_piece=",
)
OF_LIBRARIES = {"sentencepieces.py": "piece"}


def files():
  """Yields the files that people read: pages, and code with its messages."""
  package = ROOT / "bitnet_jax"
  yield from package.glob("*.py")
  for name in (*READ, *(f"bitnet_jax/{folder}" for folder in PACKAGES)):
    path = ROOT / name
    yield from (path,) if path.is_file() else path.rglob("*.*")


def test_words_to_avoid_are_not_used():
  words = [_compiled(words) for words in BANNED]
  found = []
  for path in files():
    if path.suffix not in (".py", ".md", ".sh"):
      continue
    text = path.read_text(encoding="utf-8")
    for allowed in (*ALLOWED, OF_LIBRARIES.get(path.name, "")):
      text = text.replace(allowed, "") if allowed else text
    for word, instead in zip(words, BANNED.values(), strict=True):
      for match in word.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        place = f"{path.relative_to(ROOT)}:{line}"
        found.append(f"{place}: {match[0]!r}, not {instead!r}")
  assert not found, "\n".join(found)


def _compiled(words):
  """Returns the pattern of whole words, which may be on two lines."""
  spaced = words.replace(" ", r"[\s\"]+(?:# |f\")?")
  return re.compile(
    rf"(?<![a-z])(?:{spaced})(?![a-z])", re.IGNORECASE | re.MULTILINE
  )


def test_glossary_has_at_most_40_terms():
  text = GLOSSARY.read_text(encoding="utf-8")
  terms = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)[1:]
  assert 20 <= len(terms) <= 40
  assert len(set(terms)) == len(terms)
