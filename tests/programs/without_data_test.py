"""Programs that use a trained model once its data are gone."""

import json
import os
import shutil
import subprocess
import sys

import jax.export
import numpy as np
import pytest

from bitnet_jax.export.runs import export_run
from bitnet_jax.inference import Sampling
from bitnet_jax.programs import frozen, writing
from bitnet_jax.train import runner
from bitnet_jax.train.folder.metrics import read_metrics
from tests.conftest import COMPILES_FAST
from tests.train import tiny
from tests.train.conftest import ROOT

TEXTS = ["the cat sat on the mat", "a dog ate the food of the cat"] * 8
PROMPT = "the cat"
FORMS = [
  "",  # text
  *(
    pytest.param(form, marks=pytest.mark.slow)
    for form in (
      "packed",
      "stablehlo",
      "hf",
      "hf:latent",
      "gguf:f16",
      "safetensors",
    )
  ),
]
OPTIONS = writing.WritingOptions(
  max_new_tokens=5, sampling=Sampling(temperature=0)
)
DECODER = dict(
  mesh__data=1,
  model__hidden=32,
  model__sub_norm=True,
  model__tie_embeddings=True,
  quant__recipe="bitnet_2b4t",
)


class Gone:
  """A run whose texts are gone.

  Attributes:
    run: its workdir. Its mesh takes all devices.
    old: a copy that has recorded no facts.
  """

  def __init__(self, root):
    self._root, self._made = root, {}
    self.run, self.old = root / "run", root / "old" / "run"
    for split in ("train", "valid"):
      tiny.write(root / f"{split}.txt", TEXTS)
    source = f"file:{root}/{{split}}.txt"
    runner.run(tiny.make("decoder", source, **DECODER), self.run)
    shutil.copytree(self.run, self.old)
    (self.old / "data_facts.json").unlink()
    change(self.run, "mesh", data=-1)
    (root / "train.txt").rename(root / "hidden")

  def expected(self, form):
    """Returns what becomes of the old run while its data are there.

    Args:
      form: of an export; "" for text.
    """
    if form not in self._made:
      (self._root / "hidden").rename(self._root / "train.txt")
      self._made[form] = made(self.old, self._root / "out", form)
      (self._root / "train.txt").rename(self._root / "hidden")
    return self._made[form]


def change(folder, group, **values):
  """Changes keys of the config of a run."""
  path = folder / "config.json"
  config = json.loads(path.read_text())
  config[group] |= values
  path.write_text(json.dumps(config))


def made(run, output, form):
  """Returns text of a run, or the content of the files of an export."""
  if not form:
    return text_of(writing.writer_of_run(run))
  export_run(run, output, form)
  found = content_of(output)
  shutil.rmtree(output)
  return found


def content_of(folder):
  """Returns the files of an export, of a program its outputs."""
  found = {path.name: path.read_bytes() for path in folder.iterdir()}
  if "model.jax" in found:
    del found["model.mlirbc"]  # Of the same program.
    program = jax.export.deserialize(bytearray(found["model.jax"]))
    inputs = {
      entry["name"]: np.ones((3, *map(int, entry["shape"][1:])), entry["dtype"])
      for entry in json.loads(found["model.json"])["inputs"]
    }
    found["model.jax"] = np.asarray(program.call(**inputs)).tobytes()
  found.pop("config.json", None)  # Its mesh is another.
  return found


def text_of(writer):
  return writing.write(writer, [PROMPT], OPTIONS).texts[0]


@pytest.fixture(scope="module")
def gone(tmp_path_factory):
  return Gone(tmp_path_factory.mktemp("gone"))


@pytest.mark.parametrize("form", FORMS)
def test_programs_give_what_they_give_with_the_data(gone, tmp_path, form):
  expected = gone.expected(form)
  assert made(gone.run, tmp_path / "out", form) == expected


def test_what_needs_the_data_says_so(gone):
  for run in (gone.run, gone.old):
    with pytest.raises(FileNotFoundError):
      runner.evaluate_run(run)
  with pytest.raises(FileNotFoundError, match=r"no file .*data_facts\.json"):
    writing.writer_of_run(gone.old)


def program(name, *arguments, devices):
  """Starts a program on so many devices; returns what it printed."""
  done = subprocess.run(
    [sys.executable, ROOT / "experiments" / name, *arguments],
    env={
      **os.environ,
      "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
      "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
      f" {COMPILES_FAST}",
      "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
def test_generation_works_on_devices_that_do_not_divide_the_batch(gone):
  arguments = [f"--workdir={gone.run}", f"--prompt={PROMPT}", "--json"]
  arguments += ["--temperature=0", "--max_new_tokens=5"]
  said = program("generate.py", *arguments, devices=3)
  assert json.loads(said) == {"prompt": PROMPT, "text": gone.expected("")}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS[1:])
def test_export_works_on_devices_that_do_not_divide_the_batch(
  gone, tmp_path, form
):
  arguments = [f"--workdir={gone.run}", f"--output={tmp_path}/out"]
  program("export.py", *arguments, f"--format={form}", devices=3)
  assert content_of(tmp_path / "out") == gone.expected(form)


@pytest.mark.slow
def test_run_starts_from_one_and_learns_from_it(gone, tmp_path):
  config = tiny.make(
    "decoder",
    tiny.write(tmp_path / "other.txt", TEXTS),
    **DECODER,
    init_from=str(gone.run),
    distill__teacher=str(gone.run),
    data__valid_fraction=0.2,
  )
  runner.run(config, tmp_path / "run")
  assert "train/divergence" in read_metrics(tmp_path / "run")[0]
  config["data"] |= {"tokenizer": "bpe", "vocab_size": 300}
  with pytest.raises(ValueError, match="whose vocabulary differs"):
    runner.run(config, tmp_path / "other")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.slow
def test_copied_vocabulary_is_frozen_with_the_model(tmp_path, tied):
  """The file of the vocabulary is gone too, and the folder has moved."""
  source = tiny.write(tmp_path / "texts.txt", TEXTS)
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
  tiny.write(tmp_path / "words", words)
  config = tiny.make(
    "decoder",
    source,
    mesh__data=1,
    model__tie_embeddings=tied,
    data__tokenizer=f"bert:{tmp_path / 'words'}",
    data__vocab_size=24,
    data__valid_fraction=0.2,
  )
  runner.run(config, tmp_path / "run")
  expected = text_of(writing.writer_of_run(tmp_path / "run"))
  for name in ("words", "texts.txt"):
    (tmp_path / name).unlink()
  moved = (tmp_path / "run").rename(tmp_path / "moved")
  assert text_of(writing.writer_of_run(moved, "best")) is not None
  assert text_of(writing.writer_of_run(moved)) == expected
  frozen.freeze_run(moved, tmp_path / "frozen")
  assert text_of(writing.writer_of_frozen(tmp_path / "frozen")) == expected


@pytest.mark.parametrize("form", ["packed", "hf", "gguf:f16", "stablehlo"])
def test_run_that_is_not_ternary_yet_is_refused(gone, tmp_path, form):
  shutil.copytree(gone.run, tmp_path / "run")
  path = tmp_path / "run" / "config.json"
  phase_in = json.loads(path.read_text())["quant"]["phase_in"]
  change(tmp_path / "run", "quant", phase_in=phase_in | {"steps": 9})
  with pytest.raises(ValueError, match=r"step 4, .* from step 9 on"):
    export_run(tmp_path / "run", tmp_path / "out", form)
  assert not (tmp_path / "out").exists()
  with pytest.raises(ValueError, match=r"--checkpoint=best: .* none was"):
    export_run(tmp_path / "run", tmp_path / "out", "safetensors", "best")
