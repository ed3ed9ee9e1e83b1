"""Entry point of all programs: errors and signals end them with one line.

Import it before slow imports, so that Ctrl-C during those ends the program with
one line, too.
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
# Errors that users can cause; all others show a traceback.
_EXPECTED = (
  ArithmeticError,
  ImportError,
  MemoryError,
  OSError,
  RuntimeError,
  ValueError,
)
_MOST_LINES = 10_000  # in a log file
_RETRY_SECONDS = 0.1  # until an ignored signal is sent again


class _Details:
  """Tracebacks that libraries log, collected for a log file.

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
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
          file.write(text)
        return f"{self.folder / LOG_FILE}"
      except OSError:  # The disk may be full.
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
  """Sets the folder of the log file, usually the run folder."""
  _details.folder = folder


def run(main: Callable[[list[str]], Any]) -> NoReturn:
  """Runs a program with absl's flags, and exits.

  An expected error prints one line that starts with "error:" and exits with
  status 1. A signal prints one line and exits with status 128 plus its number.
  Tracebacks from libraries' threads go to a log file instead of the terminal,
  and a line names this file.

  Args:
    main: the program; takes its name in a list.
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
  """Exits with one line about an error."""
  from bitnet_jax.train.folder import bucket

  text = " ".join(f"{error}".split("\n")).strip() or type(error).__name__
  text = f"error: {bucket.with_addresses(text)}"
  if _details.texts or isinstance(error, (MemoryError, RuntimeError)):
    _details.texts.append("".join(traceback.format_exception(error)))
    text += f" (details: {_details.write()})"
  print(text, file=sys.stderr, flush=True)
  # Warnings of libraries at exit would only distract from the error.
  warnings.simplefilter("ignore")
  sys.exit(1)


def _stop(stop: BaseException) -> NoReturn:
  """Exits with one line about a signal."""
  # A second Ctrl-C ends the process at once, without a traceback.
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
  # Python would wait for threads of libraries that are still running.
  os._exit(128 + (received or signal.SIGINT))


def _collect_tracebacks() -> None:
  """Collects tracebacks of errors that do not end the program."""
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


def _interrupt_again(report: Callable[[Any], None], ignored: Any) -> None:
  """Repeats a Ctrl-C that Python ignored in a callback of a library.

  Args:
    report: called with any other error that Python ignored.
    ignored: the argument of ``sys.unraisablehook``.
  """
  if not issubclass(ignored.exc_type, KeyboardInterrupt):
    report(ignored)
    return
  threading.Thread(target=_interrupt_until_raised, daemon=True).start()


def _interrupt_until_raised() -> None:
  """Sends Ctrl-C until it is no longer ignored.

  A signal that is raised inside the same callback would be ignored as well.
  """
  main = threading.main_thread().ident
  assert main is not None
  time.sleep(_RETRY_SECONDS)
  while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.pthread_kill(main, signal.SIGINT)
    time.sleep(_RETRY_SECONDS)


def _report_in_one_line(
  kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
  """Reports Ctrl-C and missing packages during imports in one line."""
  if isinstance(error, KeyboardInterrupt):
    _stop(error)
  if isinstance(error, MissingExtraError):
    print(f"error: {error}", file=sys.stderr)
  else:
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _report_in_one_line
sys.unraisablehook = functools.partial(_interrupt_again, sys.__unraisablehook__)
