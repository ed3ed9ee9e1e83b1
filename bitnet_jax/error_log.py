"""A file with the tracebacks that a program does not print."""

import collections
import pathlib
import tempfile

FILE = "errors.log"
_MOST_LINES = 10_000


class _Tracebacks:
  """Tracebacks of errors, collected for a log file.

  Attributes:
    folder: folder of the log file; ``None`` for the temporary folder.
    texts: the tracebacks.
  """

  def __init__(self):
    self.folder: pathlib.Path | None = None
    self.texts: collections.deque[str] = collections.deque(maxlen=_MOST_LINES)

  def write(self) -> str:
    """Writes the log file and returns its path."""
    text = "\n".join(self.texts) + "\n"
    if self.folder is not None and self.folder.is_dir():
      try:
        with (self.folder / FILE).open("a", encoding="utf-8") as file:
          file.write(text)
        return f"{self.folder / FILE}"
      except OSError:  # The disk may be full.
        (self.folder / FILE).unlink(missing_ok=True)
    try:
      with tempfile.NamedTemporaryFile(
        "w", prefix="bitnet_jax-", suffix=".log", delete=False, encoding="utf-8"
      ) as file:
        file.write(text)
      return file.name
    except OSError as error:
      return f"not written, {error}"


_log = _Tracebacks()


def keep_in(folder: pathlib.Path) -> None:
  """Sets the folder of the log file, usually the run folder."""
  _log.folder = folder


def add(traceback: str) -> None:
  """Adds a traceback to the log."""
  _log.texts.append(traceback)


def write() -> str | None:
  """Writes the log file and returns its path; ``None`` without tracebacks."""
  return _log.write() if _log.texts else None
