"""Files that survive a kill."""

import os
import pathlib


def write_atomically(path: pathlib.Path, text: str) -> None:
  """Writes a file that is either not there or whole, whatever happens."""
  partial = path.with_name(f"{path.name}.partial")
  with partial.open("w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)
