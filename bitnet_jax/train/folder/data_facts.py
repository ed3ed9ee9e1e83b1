"""``data_facts.json``: what the data of a run decided about its model.

A run writes it beside its config, with its vocabulary, so that the model can be
opened without the data.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bitnet_jax.data.text.saved import load_vocabulary, save_vocabulary
from bitnet_jax.data.text.tokenizers import Tokenizer
from bitnet_jax.train.folder import records, workdir
from bitnet_jax.train.folder.lock import FACTS_FILE
from bitnet_jax.train.tasks.facts import DataFacts

# Means and deviations that differ less were summed in another order.
_ROUNDING = 1e-5
_SHOWN = 200  # Characters of a value in a message.


class Recorded(NamedTuple):
  """The content of ``data_facts.json``.

  Attributes:
    facts: what the data decided.
    vocabulary: how the vocabulary is loaded again, see ``load_vocabulary``;
      ``None`` for none.
  """

  facts: DataFacts
  vocabulary: Mapping[str, Any] | None


def read(folder: pathlib.Path) -> Recorded | None:
  """Returns the recorded facts of a run; ``None`` for a run without the file.

  Raises:
    WorkdirError: if the file is damaged, naming it.
  """
  path = folder / FACTS_FILE
  content = workdir.read_object(path)
  if content is None:
    return None
  vocabulary = content.pop("vocabulary", "missing")
  if not isinstance(vocabulary, dict | None):
    raise workdir.WorkdirError(
      f"{path} is damaged: vocabulary is {vocabulary!r:.{_SHOWN}}; it must be"
      " an object or null"
    )
  try:
    return Recorded(DataFacts.from_json(content, f"{path}"), vocabulary)
  except ValueError as error:
    raise workdir.WorkdirError(f"{error}") from error


def read_tokenizer(folder: pathlib.Path, found: Recorded) -> Tokenizer | None:
  """Returns the recorded vocabulary of a run; ``None`` if there is none.

  Raises:
    FileNotFoundError: if a file of the vocabulary is missing.
    ValueError: if the vocabulary is not the one that the facts name.
  """
  if found.vocabulary is None:
    return None
  tokenizer = load_vocabulary(found.vocabulary, folder)
  if not found.facts.fingerprint.endswith(tokenizer.fingerprint):
    raise ValueError(
      f"{folder / FACTS_FILE} is damaged: fingerprint is"
      f" {found.facts.fingerprint!r}, but the vocabulary is"
      f" {tokenizer.fingerprint}"
    )
  return tokenizer


def claim(
  folder: pathlib.Path,
  facts: DataFacts,
  tokenizer: Tokenizer | None,
  data: Any,
) -> None:
  """Writes ``data_facts.json``, or checks that the one there says the same.

  Args:
    folder: the workdir, locked.
    facts: what the data decided.
    tokenizer: the vocabulary, if there is one.
    data: the group ``data`` of the settings, which says where it came from.

  Raises:
    WorkdirError: if the file there is damaged, or says something else, naming
      the keys that differ with both values.
  """
  found = read(folder)
  if found is not None:
    _check_same(folder / FACTS_FILE, found.facts, facts)
    return
  content = {**facts.to_json(), "vocabulary": None}
  if tokenizer is not None:
    content["vocabulary"] = save_vocabulary(
      tokenizer, data.tokenizer, folder, lowercase=data.lowercase
    )
  workdir.write_json(folder / FACTS_FILE, content)


def _check_same(path: pathlib.Path, old: DataFacts, new: DataFacts) -> None:
  """Raises a WorkdirError for facts that are not those of the file."""
  there, here = (json.loads(json.dumps(f.to_json())) for f in (old, new))
  for facts in (there, here):
    facts["example"] = _without_padding(facts["example"])
  for key in ("mean", "std"):
    sizes = {len(there[key]), len(here[key])}
    if len(sizes) == 1 and np.allclose(
      there[key], here[key], rtol=_ROUNDING, atol=_ROUNDING
    ):
      here[key] = there[key]
  changed = records.differences(there, here)
  if changed:
    shown = "; ".join(f"{text:.{_SHOWN}}" for text in changed)
    raise workdir.WorkdirError(
      f"{path} is of other data; what differs: {shown}. Choose another folder"
    )


def _without_padding(example: Mapping[str, Any]) -> dict[str, Any]:
  """Returns shapes of arrays without what depends on the devices.

  Nodes and edges of a graph are padded to what all devices share.
  """
  if "nodes" not in example:
    return dict(example)
  return {
    name: {**spec, "shape": spec["shape"][2:]} for name, spec in example.items()
  }
