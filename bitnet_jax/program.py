"""How programs start and end: with one line for a mistake or a signal.

Importing this before what takes seconds to import is enough for Ctrl-C to end
the program with a line.
"""

import collections
import functools
import logging
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from bitnet_jax.extras import MissingExtraError

LOG_FILE = "errors.log"
# What a program may fail with that is no fault of its code.
_EXPECTED = (
  ArithmeticError,
  ImportError,
  MemoryError,
  OSError,
  RuntimeError,
  ValueError,
)
_MOST_LINES = 10_000  # Of a log file.
_RETRY_SECONDS = 0.1  # Until a signal that was ignored comes again.


class _Details:
  """What libraries say of errors beside raising them.

  Attributes:
    folder: where the log file is written; ``None`` for that of temporary files.
    texts: what was said.
  """

  def __init__(self):
    self.folder: pathlib.Path | None = None
    self.texts: collections.deque[str] = collections.deque(maxlen=_MOST_LINES)

  def write(self) -> str:
    """Writes the log file, and returns its path."""
    text = "\n".join(self.texts) + "\n"
    if self.folder is not None and self.folder.is_dir():
      try:
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
          file.write(text)
        return f"{self.folder / LOG_FILE}"
      except OSError:  # A full disk may be what it is about.
        (self.folder / LOG_FILE).unlink(missing_ok=True)
    try:
      with tempfile.NamedTemporaryFile(
        "w", prefix="bitnet_jax-", suffix=".log", delete=False, encoding="utf-8"
      ) as file:
        file.write(text)
      return file.name
    except OSError as error:
      return f"not written, {error}"


_details = _Details()


def keep_details_in(folder: pathlib.Path) -> None:
  """Names the folder of the log file: that of a run."""
  _details.folder = folder


def run(main: Callable[[list[str]], Any]) -> NoReturn:
  """Runs a program with absl's flags, and ends the process.

  An expected error is told in one line that starts with "error:", with status
  1; a signal in one line, with status 128 and its number. Tracebacks that
  libraries print of errors in their threads are kept from the terminal; a file
  has them, which a line names.

  Args:
    main: takes the program's name in a list.
  """
  try:
    from absl import app

    from bitnet_jax.train.config import flags

    _collect_tracebacks()
    app.run(main, flags_parser=flags.parse_flags)
  except KeyboardInterrupt as stop:
    _stop(stop)
  except _EXPECTED as error:
    _fail(error)
  except SystemExit:
    if _details.texts:
      print(f"errors in libraries: {_details.write()}", file=sys.stderr)
    raise
  raise AssertionError("absl ends the process")


def _fail(error: BaseException) -> NoReturn:
  """Ends the process with a line that tells of an error."""
  from bitnet_jax.train.folder import bucket

  text = " ".join(f"{error}".split("\n")).strip() or type(error).__name__
  text = f"error: {bucket.with_addresses(text)}"
  if _details.texts or isinstance(error, (MemoryError, RuntimeError)):
    _details.texts.append("".join(traceback.format_exception(error)))
    text += f" (details: {_details.write()})"
  print(text, file=sys.stderr, flush=True)
  # What libraries left undone need not be told of at the end.
  warnings.simplefilter("ignore")
  sys.exit(1)


def _stop(stop: BaseException) -> NoReturn:
  """Ends the process with a line that tells of a signal."""
  # Whoever does not want to wait for what follows gets no traceback.
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  received = getattr(stop, "signal", None)
  text = f"{stop}" or "stopped by SIGINT"
  print(text, file=sys.stderr, flush=True)
  if received is not None and not getattr(stop, "at_once", False):
    sys.exit(128 + received)
  sys.stdout.flush()
  bucket = sys.modules.get("bitnet_jax.train.folder.bucket")
  if bucket is not None:
    bucket.leave()
  # Threads of libraries may be at work; Python would wait for them.
  os._exit(128 + (received or signal.SIGINT))


def _collect_tracebacks() -> None:
  """Keeps tracebacks of errors that do not end the program for a file."""
  from absl import logging as absl_logging

  def collect(record: logging.LogRecord) -> bool:
    if not record.exc_info:
      return True
    _details.texts.append(logging.Formatter().format(record))
    return False

  def collect_error(args: Any) -> None:
    error = (args.exc_type, args.exc_value, args.exc_traceback)
    _details.texts.append("".join(traceback.format_exception(*error)))

  absl_logging.get_absl_handler().python_handler.addFilter(collect)
  threading.excepthook = collect_error
  sys.unraisablehook = functools.partial(_interrupt_again, collect_error)


def _interrupt_again(tell: Callable[[Any], None], ignored: Any) -> None:
  """Lets Ctrl-C come again where Python ignores it: in callbacks of libraries.

  Args:
    tell: takes any other error that Python ignores.
    ignored: what ``sys.unraisablehook`` takes.
  """
  if not issubclass(ignored.exc_type, KeyboardInterrupt):
    tell(ignored)
    return
  threading.Thread(target=_interrupt_until_told, daemon=True).start()


def _interrupt_until_told() -> None:
  """Sends Ctrl-C until it is not ignored.

  A signal that is raised where one was ignored would be ignored as well.
  """
  main = threading.main_thread().ident
  assert main is not None
  time.sleep(_RETRY_SECONDS)
  while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.pthread_kill(main, signal.SIGINT)
    time.sleep(_RETRY_SECONDS)


def _tell_in_a_line(
  kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
  """Tells of Ctrl-C, and of missing packages, during imports."""
  if isinstance(error, KeyboardInterrupt):
    _stop(error)
  if isinstance(error, MissingExtraError):
    print(f"error: {error}", file=sys.stderr)
  else:
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _tell_in_a_line
sys.unraisablehook = functools.partial(_interrupt_again, sys.__unraisablehook__)
