"""Plans and remarks as HTML: Markdown without HTML, images and local links."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from bitnet_jax.extras import needed_by

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# Wide tables scroll by themselves, also with the keyboard.
_SCROLLED = '<div class="scroll" role="region" tabindex="0"'


@functools.cache
def _parser() -> Any:
  with needed_by("the report", "markdown_it", extra="report"):
    import markdown_it
  return markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table")


def render(text: str) -> Any:
  """Returns Markdown as HTML that templates take unescaped.

  The title is left out, and the other headings move down by one level. Links
  to files lead nowhere in the site, so their text remains alone.
  """
  with needed_by("the report", "markupsafe", extra="report"):
    import markupsafe
  parser = _parser()
  tokens = list(_shown(parser.parse(_COMMENT.sub("", text))))
  return markupsafe.Markup(parser.renderer.render(tokens, parser.options, {}))


def _shown(tokens: Sequence[Any]) -> Iterator[Any]:
  """Yields the tokens of what the site shows."""
  in_title, tables = False, 0
  for token in tokens:
    if token.type.startswith("heading_"):
      if token.tag == "h1":
        in_title = token.type == "heading_open"
        continue
      token.tag = f"h{min(int(token.tag[1]) + 1, 6)}"
    if in_title:
      continue
    if token.children:
      token.children = list(_without_local_links(token.children))
    if token.type == "th_open":
      token.attrSet("scope", "col")
    if token.type == "table_open":
      tables += 1
      yield _html(token, f'{_SCROLLED} aria-label="Table {tables}">')
    yield token
    if token.type == "table_close":
      yield _html(token, "</div>")


def _html(token: Any, text: str) -> Any:
  """Returns a token of our own HTML beside another token."""
  return dataclasses.replace(
    token, type="html_block", tag="", nesting=0, content=text, attrs={}
  )


def _without_local_links(tokens: Sequence[Any]) -> Iterator[Any]:
  opened = []
  for token in tokens:
    if token.type == "link_open":
      opened.append(re.match("https?:", f"{token.attrGet('href')}"))
      if not opened[-1]:
        continue
    elif token.type == "link_close":
      if not opened.pop():
        continue
    elif token.type == "image":
      yield from token.children or ()
      continue
    yield token
