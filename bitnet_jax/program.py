"""Entry point of all programs: errors and signals end them with one line.

Import it before slow imports, so that Ctrl-C during those ends the program with
one line, too.
"""

import functools
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn

from bitnet_jax import error_log
from bitnet_jax.extras import MissingExtraError

# Errors that users can cause; all others show a traceback.
_EXPECTED = (
  ArithmeticError,
  ImportError,
  MemoryError,
  OSError,
  RuntimeError,
  ValueError,
)
_RETRY_SECONDS = 0.1  # until an ignored signal is sent again


def run(main: Callable[[list[str]], Any]) -> NoReturn:
  """Runs a program with absl's flags, and exits.

  An expected error prints one line that starts with "error:" and exits with
  status 1. A signal prints one line and exits with status 128 plus its number.
  Tracebacks from libraries' threads go to a log file instead of the terminal,
  and a line names this file.

  Args:
    main: the program; takes its name in a list, and the arguments that are no
      flags if its module says in ``POSITIONAL`` what they are, such as "RUN".
  """
  try:
    from absl import app

    from bitnet_jax.train.config import flags

    _collect_tracebacks()
    _show_help(main.__module__)
    arguments = getattr(sys.modules[main.__module__], "POSITIONAL", None)
    app.run(
      functools.partial(_interruptible, main),
      flags_parser=functools.partial(flags.parse_flags, arguments=arguments),
    )
  except KeyboardInterrupt as stop:
    _stop(stop)
  except BrokenPipeError:
    # What read the output has ended, such as `head`; Python would complain when
    # it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)
  except _EXPECTED as error:
    # Extension modules turn Ctrl-C while they are imported into another error.
    cause = error.__cause__
    while cause is not None:
      if isinstance(cause, KeyboardInterrupt):
        _stop(cause)
      cause = cause.__cause__
    _fail(error)
  except SystemExit:
    log = error_log.write()
    if log is not None:
      print(f"errors in libraries: {log}", file=sys.stderr)
    raise
  raise AssertionError("absl ends the process")


def _show_help(module: str) -> None:
  """Shows the help of a program and exits, if the command line asks for it.

  absl would show that of the main program, which may only call the module.
  """
  from bitnet_jax.train.config import flags, help

  if not set(help.WORDS) & {*sys.argv[1:]}:
    return
  config, _ = flags.config_flags(sys.argv[1:])
  print(help.describe(module, config))
  sys.exit()


def _interruptible(main: Callable[[list[str]], Any], argv: list[str]) -> Any:
  """Runs a program so that Ctrl-C raises an error, for it to clean up."""
  at_once = signal.getsignal(signal.SIGINT) is _stop_at_once
  if at_once:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    return main(argv)
  finally:
    if at_once:
      signal.signal(signal.SIGINT, _stop_at_once)


def _fail(error: BaseException) -> NoReturn:
  """Exits with one line about an error."""
  from bitnet_jax.train.folder import bucket

  text = " ".join(f"{error}".split("\n")).strip() or type(error).__name__
  text = f"error: {bucket.with_addresses(text)}"
  if isinstance(error, (MemoryError, RuntimeError)):
    error_log.add("".join(traceback.format_exception(error)))
  log = error_log.write()
  if log is not None:
    text += f" (details: {log})"
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


def _stop_at_once(number: int, frame: FrameType | None) -> None:
  """Handles Ctrl-C where nothing is to be cleaned up: during imports."""
  del number, frame
  _stop(KeyboardInterrupt())


def _collect_tracebacks() -> None:
  """Collects tracebacks of errors that do not end the program."""
  from absl import logging as absl_logging

  def collect(record: logging.LogRecord) -> bool:
    if not record.exc_info:
      return True
    error_log.add(logging.Formatter().format(record))
    return False

  def collect_error(args: Any) -> None:
    error = (args.exc_type, args.exc_value, args.exc_traceback)
    error_log.add("".join(traceback.format_exception(*error)))

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
  """Reports missing packages during imports in one line."""
  if isinstance(error, MissingExtraError):
    print(f"error: {error}", file=sys.stderr)
  else:
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _report_in_one_line
# An error that is raised during an import is not sure to end the program:
# Python ignores it in callbacks, and libraries handle it.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
  signal.signal(signal.SIGINT, _stop_at_once)
