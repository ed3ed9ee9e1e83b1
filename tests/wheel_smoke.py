"""Installs what users install, and uses it: wheel_smoke.py PYTHON...

Builds the wheel and the source archive; a wheel made from the archive must have
the same files, and one made without a compiler all but the native kernels. With
each interpreter, such as python3.12, installs the wheel into a new environment,
first without extras, where each verb must say in one line what to install, then
with those that the verbs need. There it trains, evaluates, predicts, writes,
exports and compares small models in an empty folder, by the console script,
without a compiler, and in a home of its own.

An interpreter that is not there is skipped, but one must be there. Needs a
package index (or pip's cache), and no package but those of Python.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).parents[1]
EXTRAS = "train,export,report"
TINY = (
  "--config.total_steps=4 --config.optim.warmup_steps=1"
  " --config.quant.recipe=bitnet_2b4t --config.data.tokenizer=bytes"
  " --config.data.vocab_size=None --config.data.seq_len=32"
  " --config.data.batch_size=4 --config.model.hidden=32"
  " --config.model.num_layers=1 --config.model.num_heads=2"
  " --config.model.num_kv_heads=2 --config.model.mlp_width=32"
).split()
# Verbs with their flags, and what they must print; in this order.
USES = (
  (
    "train --config=digits_mlp --workdir=runs/é --config.total_epochs=2",
    r'\{"valid/accuracy": 0\.[5-9]',
  ),
  ("evaluate --workdir=runs/é", r'"test/accuracy": 0\.[5-9]'),
  ("export --workdir=runs/é --output=frozen/é", "in memory"),
  ("evaluate --frozen=frozen/é", r'"test/accuracy": 0\.[5-9]'),
  (
    "train --config=images --config.data.source=folder:pets"
    " --config.total_epochs=2 --workdir=runs/pets",
    '"valid/accuracy": ',
  ),
  (
    "predict --workdir=runs/pets pets/dark/0.png",
    r"^pets/dark/0.png +(dark|light) +\d",
  ),
  (
    "sweep --config=digits_mlp --grid=seed=0,1 --config.total_epochs=1"
    " --workdir=runs/sweep",
    r"\| 2 \|",
  ),
  ("compare runs/sweep", r"\| 2 \|"),
  ("runs runs", "sweep/seed=1"),
  ("report --studies=studies --output=report", "1 studies, 1 records"),
  ("train --config=pydoc_decoder --workdir=runs/lm TINY", "valid/loss"),
  ("generate --workdir=runs/lm --prompt=The --max_new_tokens=4", r"The\|"),
  ("export --workdir=runs/lm --output=gguf/lm --format=gguf:f16", ""),
)
PICTURES = """
import pathlib
from PIL import Image

for name, shade in (("dark", 60), ("light", 190)):
  folder = pathlib.Path("pets", name)
  folder.mkdir(parents=True)
  for i in range(20):
    colour = (shade, shade + i, shade - i)
    Image.new("RGB", (16, 16), colour).save(folder / f"{i}.png")
folder = pathlib.Path("studies", "one")
folder.mkdir(parents=True)
(folder / "results.jsonl").write_text('{"case": "a", "metrics": {"a": 1}}')
"""
IMPORTS = """
import bitnet_jax, bitnet_jax.nnx, bitnet_jax.inference, bitnet_jax.convert
import bitnet_jax.export
bitnet_jax.BitDense
"""
# Without a compiler; on processors that lack the instructions, "no native ...".
KERNELS = """
from bitnet_jax.ops.cpu import library

print(library.describe())
assert library.packaged().exists()
"""


def main(interpreters: list[str]) -> None:
  """Runs everything; raises an error at the first mistake."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    wheel = build(folder)
    there = [python for python in interpreters if is_there(python)]
    if not there:
      sys.exit(f"error: none of {interpreters} is there")
    for python in there:
      began = time.monotonic()
      use(python, wheel, folder / python.replace("/", "_"))
      print(f"{python}: {time.monotonic() - began:.0f} s", flush=True)


def build(folder: pathlib.Path) -> pathlib.Path:
  """Returns the wheel, after comparing it with one from the source archive."""
  python = environment(sys.executable, folder / "build")
  pip(python, "hatchling")
  built = folder / "built"
  run(python, "-m", "hatchling", "build", "-t", "sdist", "-d", built, cwd=ROOT)
  (archive,) = built.glob("*.tar.gz")
  wheel, again = (
    wheel_of(python, source, built / name)
    for name, source in (("1", ROOT), ("2", archive))
  )
  # What is compiled differs by the names of temporary folders.
  assert sources(wheel) == sources(again), "the archive lacks files"
  assert "bitnet_jax/configs/digits_mlp.py" in contents(wheel)
  assert "bitnet_jax/py.typed" in contents(wheel)
  assert len(kernels(wheel)) == 1
  plain = wheel_of(python, archive, built / "3", CXX="no-compiler")
  assert plain.name.endswith("-py3-none-any.whl")
  assert sources(plain) == sources(wheel)
  assert not kernels(plain)
  return wheel


def wheel_of(python, source, folder, **variables) -> pathlib.Path:
  """Returns a wheel that pip makes of sources."""
  words = ("wheel", "--quiet", "--no-deps", source, "-w", folder)
  run(python, "-m", "pip", *words, env={**os.environ, **variables})
  (wheel,) = folder.glob("*.whl")
  return wheel


def use(python: str, wheel: pathlib.Path, folder: pathlib.Path) -> None:
  """Installs the wheel with one interpreter, and uses every verb."""
  installed = environment(python, folder / "environment")
  empty = folder / "empty"
  empty.mkdir()
  pip(installed, wheel)
  call(installed, empty, "-c", IMPORTS)
  assert "native kernels" in call(installed, empty, "-c", KERNELS).stdout
  shown = call(installed, empty, "-m", "bitnet_jax").stdout
  verbs = re.findall(r"^  (\w+)", shown, re.MULTILINE)
  used = {line.split()[0] for line, _ in USES} | {"compile", "import"}
  assert set(verbs) == used, shown
  for verb in verbs:
    done = script(installed, empty, verb, "--workdir=runs/x", status=1)
    assert done.stderr.count("\n") == 1, done.stderr
    assert "pip install 'bitnet-jax[train]'" in done.stderr, done.stderr
  pip(installed, f"{wheel}[{EXTRAS}]")
  call(installed, empty, "-c", PICTURES)
  for line, pattern in USES:
    verb, *words = line.replace(" TINY", "").split()
    more = TINY if line.endswith(" TINY") else ()
    done = script(installed, empty, verb, *words, *more)
    assert re.search(pattern, done.stdout), (line, done.stdout, done.stderr)
  done = script(installed, empty, "compile", "--config=digits_mlp", status=1)
  assert "pip install 'bitnet_jax[tpu]'" in done.stderr, done.stderr
  done = call(installed, empty, "-m", "bitnet_jax.ops.native", status=1)
  assert done.stderr.startswith("error: there is no compiler 'g++'")


def is_there(python: str) -> bool:
  """Whether an interpreter can be started."""
  try:
    done = subprocess.run([python, "--version"], capture_output=True)
  except OSError:
    done = None
  if done is not None and done.returncode == 0:
    return True
  print(f"{python} is not there: skipped")
  return False


def environment(python: str, folder: pathlib.Path) -> pathlib.Path:
  """Makes a new environment, and returns its interpreter."""
  run(python, "-m", "venv", folder)
  return folder / "bin" / "python"


def pip(python: pathlib.Path, *packages: str | pathlib.Path) -> None:
  """Installs packages."""
  run(python, "-m", "pip", "install", "--quiet", *packages)


def contents(wheel: pathlib.Path) -> dict[str, bytes]:
  """Returns the files of a wheel by path."""
  with zipfile.ZipFile(wheel) as file:
    return {name: file.read(name) for name in file.namelist()}


def kernels(wheel: pathlib.Path) -> list[str]:
  """Returns the names of compiled files in a wheel."""
  return [name for name in contents(wheel) if name.endswith(".so")]


def sources(wheel: pathlib.Path) -> dict[str, bytes]:
  """Returns the files of a wheel by path, without what kernels change."""
  return {
    name: content
    for name, content in contents(wheel).items()
    if not name.endswith((".so", "/RECORD", "/WHEEL"))
  }


def script(python, folder, *words, status=0):
  """Runs the console script, and returns what it printed."""
  return call(python.with_name("bitnet-jax"), folder, *words, status=status)


def call(program, folder, *words, status=0):
  """Runs a program of an environment without anything from outside it."""
  env = {
    "HOME": str(folder.parent),
    "LANG": "C.UTF-8",
    "PATH": str(program.parent),
    "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
  }
  return run(program, *words, cwd=folder, env=env, status=status)


def run(*words, status=0, **options):
  """Runs a command that must end with a status."""
  command = list(map(str, words))
  done = subprocess.run(command, capture_output=True, text=True, **options)
  if done.returncode != status:
    sys.exit(
      f"error: {command} ended with {done.returncode}:\n"
      f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
  return done


if __name__ == "__main__":
  main(sys.argv[1:] or [sys.executable])
