"""Config keys that all tasks on text share, and the vocabulary they name."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import TypeVar

from bitnet_jax.data.text.tokenizers import ROLES, Tokenizer, load_tokenizer
from bitnet_jax.train.config.settings import (
  DataOptions,
  ModelOptions,
  RunContext,
  check_least,
)

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions(DataOptions):
  """The keys of the group ``data`` that all tasks on text have.

  Attributes:
    source: where the texts come from; each task says what it takes.
    tokenizer: "bytes", "bpe", "wordpiece" and "unigram", which are trained on
      the training split and kept in the folder of the run, or a file, see
      ``load_tokenizer``.
    vocab_size: what to train to; ``None`` for what is not trained.
    lowercase: whether text is read in lower case; ``None``: as is usual for the
      tokenizer.
  """

  split_names: tuple[tuple[str, str], ...]
  test_fraction: float
  data_dir: str | None
  tokenizer: str
  vocab_size: int | None
  lowercase: bool | None

  def __post_init__(self):
    super().__post_init__()
    check_least("data", self, vocab_size=1)

  def by_split(
    self, splits: Iterable[str], make: Callable[[str], _T]
  ) -> dict[str, _T]:
    """Returns what is made of each split; an error names it."""
    made = {}
    for split in splits:
      try:
        made[split] = make(split)
      except ValueError as error:
        raise ValueError(f"{self.source}, {split}: {error}") from error
    return made

  def check_fits(self, model: ModelOptions, *keys: str) -> None:
    """Raises a ValueError for rows longer than the model.

    Args:
      model: the group ``model``.
      *keys: of this group, each the length of rows.
    """
    most = model.sizes["max_length"]
    for key in keys:
      length = getattr(self, key)
      if length > most:
        raise ValueError(
          f"data.{key} is {length}, more than model.max_length, {most}"
        )

  def load_tokenizer(
    self,
    texts: Callable[[], Iterable[str]],
    context: RunContext,
    *,
    num_sentinels: int = 0,
  ) -> Tokenizer:
    """Returns the tokenizer, trained on ``texts`` or found in the folder.

    It has every special token, whatever the task needs, so that another task
    can start from the parameters. Older runs have only the special tokens of
    their task; their vocabularies are found by fingerprint.
    """
    return load_tokenizer(
      self.tokenizer,
      texts=texts,
      vocab_size=self.vocab_size,
      num_sentinels=num_sentinels,
      lowercase=self.lowercase,
      needs=ROLES,
      known=context.vocabularies,
      cache=context.folder,
    )
