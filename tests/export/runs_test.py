"""Runs in other people's formats, and models of others as runs."""

import functools
import json
import pathlib

import gguf
import jax
import jax.export
import numpy as np
import pytest

from bitnet_jax.data.text.tokenizers import load_tokenizer
from bitnet_jax.export import hf, imports
from bitnet_jax.export.imports import import_hf
from bitnet_jax.export.runs import VARIANTS, check_export, export_run
from bitnet_jax.inference import Sampling
from bitnet_jax.inference.tensors import load_tensors
from bitnet_jax.programs import writing
from bitnet_jax.train import runner
from bitnet_jax.train.build import build
from bitnet_jax.train.folder import warm_start
from bitnet_jax.train.folder.metrics import read_metrics
from tests.export import decoder
from tests.train import tiny
from tests.train.folder.trained_test import save
from tests.train.tasks.registry_test import CASES

TEXTS = ["the cat sat on the mat", "a dog ate the food of the cat"] * 8
DECODER = dict(
  mesh__data=1,
  model__hidden=32,
  model__sub_norm=True,
  model__tie_embeddings=True,
  quant__recipe="bitnet_2b4t",
)


def train(folder, **overrides):
  """Returns the folder of a short run."""
  for split in ("train", "valid"):
    tiny.write(folder / f"{split}.txt", TEXTS)
  source = f"file:{folder}/{{split}}.txt"
  runner.run(tiny.make("decoder", source, **overrides), str(folder / "run"))
  return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return train(tmp_path_factory.mktemp("decoder"), **DECODER)


def write(writer):
  options = writing.WritingOptions(max_new_tokens=5, sampling=Sampling())
  return writing.write(writer, ["the cat", "a dog ate"], options).texts


@pytest.mark.parametrize(
  ("form", "overrides", "message"),
  [
    ("packed", {}, None),
    pytest.param("hf:latent", {}, None, marks=pytest.mark.slow),
    pytest.param(
      "gguf:f16",
      {"model__feed_forward": "swiglu"},
      None,
      marks=pytest.mark.slow,
    ),
    pytest.param("stablehlo", {}, None, marks=pytest.mark.slow),
    ("gguf:tq2_0", {}, r"--check_export=gguf:tq2_0: .*hidden is 32"),
    ("gguf:q9", {}, r"--check_export=gguf: is 'q9', which is not one of"),
    ("onnx", {}, r"--check_export is 'onnx', which is not one of: 'packed'"),
    ("packed", {"quant__recipe": "float"}, "--check_export=packed: no layer"),
    (
      "packed",
      {"quant__phase_in__start": 10_000},
      "--check_export=packed: .*still being phased in",
    ),
  ],
)
def test_export_is_checked_before_a_run(tmp_path, form, overrides, message):
  tiny.write(tmp_path / "train.txt", TEXTS)
  tiny.write(tmp_path / "valid.txt", TEXTS)
  source = f"file:{tmp_path}/{{split}}.txt"
  options = DECODER | {"model__sub_norm": False} | overrides
  experiment = build(tiny.make("decoder", source, **options))
  before = sorted(tmp_path.iterdir())
  if message is None:
    check_export(experiment, form)
  else:
    with pytest.raises(ValueError, match=message):
      check_export(experiment, form)
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_export_to_transformers_comes_back_as_a_model_that_writes(
  run, tmp_path
):
  told = export_run(run, tmp_path / "hf", "hf")
  assert "model.safetensors" in told
  told = import_hf(tmp_path / "hf", tmp_path / "back")
  assert told.startswith("frozen model, ")
  found = write(writing.writer_of_frozen(tmp_path / "back"))
  assert found == write(writing.writer_of_run(run))
  with pytest.raises(ValueError, match="holds a frozen model; choose another"):
    runner.run(tiny.make("decoder", "file:x"), tmp_path / "back")


@pytest.mark.slow
def test_latent_weights_come_back_as_the_start_of_a_run(run, tmp_path):
  export_run(run, tmp_path / "hf", "hf:latent")
  told = import_hf(tmp_path / "hf", tmp_path / "back")
  assert told.startswith("checkpoint for init_from, ")
  message = r"to start from .init_from., not a run"
  with pytest.raises(ValueError, match=message):
    runner.evaluate_run(tmp_path / "back")
  with pytest.raises(ValueError, match=message):
    runner.run(tiny.make("decoder", "file:x"), tmp_path / "back")
  folder = train(
    tmp_path,
    **DECODER,
    model__scan_layers=True,
    init_from=str(tmp_path / "back"),
    data__tokenizer=f"tokenizers:{tmp_path / 'back' / 'tokenizer.json'}",
  )
  started, fresh = (
    read_metrics(path)[0]["train/loss"] for path in (folder, run)
  )
  assert started < fresh


@pytest.mark.slow
def test_imports_are_named_by_their_content(tmp_path):
  names = []
  for i in range(2):
    model, variables = decoder.make()
    scaled = jax.tree.map(lambda a, i=i: a * (1 + i), variables)
    hf.write_hf(tmp_path / "hf", model, scaled)
    import_hf(tmp_path / "hf", tmp_path / str(i))
    names.append(warm_start.find(tmp_path / str(i)).run_id)
  assert names[0] != names[1]


@pytest.mark.slow
def test_first_token_of_another_config_stands_before_prompts(tmp_path):
  model, variables = decoder.make_frozen()
  tokenizer = load_tokenizer("bytes", texts=tuple)
  hf.write_hf(tmp_path / "hf", model, variables, tokenizer=tokenizer)
  path = tmp_path / "hf" / "config.json"
  config = json.loads(path.read_text())
  ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": [7, 8]}
  path.write_text(json.dumps(config | ids))
  import_hf(tmp_path / "hf", tmp_path / "back")
  writer = writing.writer_of_frozen(tmp_path / "back")
  assert (writer.first_id, writer.stop_id) == (tokenizer.bos_id, [7, 8])
  own = writer._replace(first_id=None, stop_id=None)
  assert write(writer) != write(own)


@pytest.mark.parametrize(
  ("config", "generation", "ids", "said"),
  [
    ({"eos_token_id": 3}, None, {"stop_id": 3}, ""),
    ({"eos_token_id": [3, 4]}, None, {"stop_id": [3, 4]}, ""),
    ({"eos_token_id": [3]}, None, {"stop_id": 3}, ""),
    (
      {"eos_token_id": 3, "bos_token_id": 1},
      {"eos_token_id": [4, 5]},
      {"stop_id": [4, 5], "first_id": 1},
      "",
    ),
    ({"eos_token_id": 3}, {"eos_token_id": None}, {"stop_id": 3}, ""),
    ({"eos_token_id": None}, None, {}, ""),
    ({"eos_token_id": [3, 9]}, None, {"stop_id": 3}, "so [3] remain"),
    ({"eos_token_id": "</s>"}, None, {}, "eos_token_id is </s>"),
    ({"eos_token_id": [True]}, None, {}, "in 0..8, so none remain"),
  ],
)
def test_texts_end_where_the_files_say(
  tmp_path, caplog, config, generation, ids, said
):
  (tmp_path / "config.json").write_text(json.dumps(config))
  if generation is not None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(generation))
  assert imports._ids(tmp_path, 9) == ids
  assert said in caplog.text
  assert bool(said) == bool(caplog.text)


@pytest.mark.slow
def test_export_to_llama_cpp(run, tmp_path):
  with pytest.raises(ValueError, match=r"model.hidden is 32.*multiples of 256"):
    export_run(run, tmp_path / "gguf", "gguf")
  assert not (tmp_path / "gguf").exists()
  export_run(run, tmp_path / "gguf", "gguf:f16")
  fields = gguf.GGUFReader(tmp_path / "gguf" / "model-f16.gguf").fields
  assert fields["general.architecture"].contents() == "bitnet"


@pytest.mark.slow
def test_export_as_a_program(run, tmp_path):
  export_run(str(run), str(tmp_path / "out"), "stablehlo")
  data = bytearray((tmp_path / "out" / "model.jax").read_bytes())
  content = json.loads((tmp_path / "out" / "model.json").read_text())
  inputs = {
    entry["name"]: np.ones((3, *map(int, entry["shape"][1:])), entry["dtype"])
    for entry in content["inputs"]
  }
  assert "tokens" in inputs
  logits = jax.export.deserialize(data).call(**inputs)
  assert logits.shape == (3, 16, 263)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_model_of_every_task_is_a_program(make_config, tmp_path, name):
  """Which is compared with the model on random inputs when it is written."""
  config = CASES[name][0](make_config, tmp_path)
  save(config, tmp_path / "run")
  export_run(tmp_path / "run", tmp_path / "out", "stablehlo")
  content = json.loads((tmp_path / "out" / "model.json").read_text())
  assert content["inputs"]
  count = content["options"].get("num_documents")
  assert count in (None, str(config["data"]["batch_size"]))


@pytest.mark.slow
def test_network_in_full_precision_is_a_program_too(tmp_path):
  changes = dict(quant__recipe="float", model__tie_embeddings=True)
  folder = train(tmp_path, **changes, mesh__data=1, total_steps=1)
  told = export_run(folder, tmp_path / "out", "stablehlo")
  assert "model.mlirbc" in told


def test_export_of_latent_weights(run, tmp_path):
  export_run(run, tmp_path / "out", "safetensors")
  usual = (tmp_path / "out" / "config.json").stat().st_mode
  assert {f.stat().st_mode for f in (tmp_path / "out").iterdir()} == {usual}
  tensors, _ = load_tensors(tmp_path / "out" / "model.safetensors")
  assert {str(array.dtype) for array in tensors.values()} == {"bfloat16"}
  assert "blocks_0/attention/query/kernel" in tensors
  assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
  ("form", "message"),
  [
    ("onnx", "--format is 'onnx', which is not one of: 'packed', 'hf'"),
    ("gguf:q4_0", "--format=gguf: is 'q4_0', .* 'tq2_0', 'tq1_0', 'f16'"),
    ("packed:x", "--format=packed: is 'x'"),
  ],
)
def test_unknown_forms_are_errors(tmp_path, form, message):
  with pytest.raises(ValueError, match=message):
    export_run(tmp_path / "run", tmp_path / "out", form)


@pytest.mark.parametrize("form", VARIANTS)
def test_nothing_is_overwritten(run, tmp_path, form):
  (tmp_path / "mine").write_text("mine")
  with pytest.raises(FileExistsError, match=r"--output=.*choose another"):
    export_run(run, tmp_path, form)
  assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_failed_export_leaves_nothing(tmp_path):
  with pytest.raises(ValueError, match="no run is there"):
    export_run(pathlib.Path(tmp_path / "run"), tmp_path / "out", "hf")
  assert not list(tmp_path.iterdir())


def test_failed_import_leaves_nothing(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"config\.json"):
    import_hf(tmp_path / "hf", tmp_path / "out")
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_predictions_are_a_matter_of_training_alone(tmp_path):
  source = tiny.write(tmp_path / "lines.txt", ["some words of it"] * 40)
  make = functools.partial(tiny.make, "encoder", source, task__predictions=4)
  runner.run(make(), tmp_path / "run")
  export_run(tmp_path / "run", tmp_path / "out", "stablehlo")
  data = bytearray((tmp_path / "out" / "model.jax").read_bytes())
  content = json.loads((tmp_path / "out" / "model.json").read_text())
  inputs = {
    entry["name"]: np.ones((3, *map(int, entry["shape"][1:])), entry["dtype"])
    for entry in content["inputs"]
  }
  assert "places" not in inputs
  assert jax.export.deserialize(data).call(**inputs).shape[:2] == (3, 16)
  teacher = dict(distill__teacher=str(tmp_path / "run"))
  with pytest.raises(ValueError, match=r"final_norm.* task.predictions is 4"):
    build(make(distill__features=("final_norm",), **teacher))
