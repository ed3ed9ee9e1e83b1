"""Compiles the kernels in C++, with the standard library and headers of jaxlib.

This file imports nothing else: the build of a wheel loads it by itself.
"""

import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import subprocess

FOLDER = pathlib.Path(__file__).parent
# No package, so that nothing that lists modules takes the library for one.
COMPILED = "compiled"
SOURCES = (
  "attention.cc",
  "packed_dot.cc",
  "rows.cc",
  "ternary_dot.cc",
  "transposed_dot.cc",
)
HEADERS = ("tiles.h",)
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-w")
# A library for machines with other versions of these.
FLAGS += ("-s", "-static-libgcc", "-static-libstdc++")
MACHINES = ("x86_64", "AMD64")


class NativeError(Exception):
  """The kernels cannot be compiled, or do not run here."""


def file_name() -> str:
  """Returns the name of the library of these sources."""
  digest = hashlib.sha256(" ".join(FLAGS).encode())
  for name in (*SOURCES, *HEADERS):
    digest.update((FOLDER / name).read_bytes())
  return f"kernels-{digest.hexdigest()[:12]}.so"


def compiler() -> list[str]:
  """Returns the words of ``$CXX``, or g++.

  Raises:
    NativeError: if there is no such program, or if no kernel is written for
      this machine.
  """
  if platform.machine() not in MACHINES:
    raise NativeError(
      f"there are kernels for {MACHINES[0]}, not for {platform.machine()}"
    )
  words = shlex.split(os.environ.get("CXX") or "g++")
  if shutil.which(words[0]) is None:
    raise NativeError(
      f"there is no compiler {words[0]!r}; set CXX to one of C++17"
    )
  return words


def compile_to(path: pathlib.Path, include: str | os.PathLike[str]) -> None:
  """Compiles the kernels.

  Args:
    path: where the library is written.
    include: folder of the headers of jaxlib.

  Raises:
    NativeError: if there is no compiler, or with its first error.
  """
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  sources = [str(FOLDER / name) for name in SOURCES]
  words = compiler()
  command = [*words, *FLAGS, f"-I{include}", *sources, "-o", str(path)]
  done = subprocess.run(command, capture_output=True, text=True)
  if done.returncode != 0:
    lines = done.stderr.splitlines() or [f"status {done.returncode}"]
    first = next((line for line in lines if "error" in line), lines[-1])
    raise NativeError(f"{shlex.join(words)} failed: {first}")
