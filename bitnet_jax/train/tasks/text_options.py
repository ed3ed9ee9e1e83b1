"""Config keys of all tasks on text, and the tokenizer that they select."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import TypeVar

from bitnet_jax.data.text.tokenizers import ROLES, Tokenizer, load_tokenizer
from bitnet_jax.train.config import groups
from bitnet_jax.train.config.settings import RunContext

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions(groups.DataOptions):
  """The keys of the group ``data`` that all tasks on text have.

  Attributes:
    source: of the texts; each task lists what it takes.
    tokenizer: "bytes"; "bpe", "wordpiece" or "unigram", trained on the training
      split and saved in the folder of the run; or a file. See
      ``load_tokenizer``.
    vocab_size: vocabulary size of a tokenizer that is trained; else ``None``.
    lowercase: whether text is lower-cased; ``None`` for the default of the
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
    groups.check_least("data", self, vocab_size=1)

  def by_split(
    self, splits: Iterable[str], make: Callable[[str], _T]
  ) -> dict[str, _T]:
    """Calls a function for each split; an error names the split."""
    made = {}
    for split in splits:
      try:
        made[split] = make(split)
      except ValueError as error:
        raise ValueError(f"{self.source}, {split}: {error}") from error
    return made

  def check_fits(self, model: groups.ModelOptions, *keys: str) -> None:
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
    """Returns the tokenizer, trained on ``texts`` or read from the folder.

    It has every special token, whatever the task needs, so that another task
    can start from the parameters. Older runs have only the special tokens of
    their task; their vocabularies are found by fingerprint.
    """
    key = (self.tokenizer, self.vocab_size, self.lowercase, num_sentinels)
    if key not in context.tokenizers:
      context.tokenizers[key] = load_tokenizer(
        self.tokenizer,
        texts=texts,
        vocab_size=self.vocab_size,
        num_sentinels=num_sentinels,
        lowercase=self.lowercase,
        needs=ROLES,
        known=context.vocabularies,
        cache=context.folder,
      )
    return context.tokenizers[key]
