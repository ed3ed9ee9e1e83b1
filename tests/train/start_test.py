"""Starts that fail leave nothing, and a run keeps to the folder it locked."""

import os
import pathlib
import shutil
import time

import pytest

from bitnet_jax.train import hooks, runner
from bitnet_jax.train.folder import bucket, workdir
from bitnet_jax.train.folder.lock import Lock
from tests.train import tiny

TEXTS = ["the cat sat on the mat", "a dog ate the food of the cat"] * 8


def everything(folder):
  """Returns what is below a folder, and the content of its files."""
  return {
    path.relative_to(folder): path.read_bytes() if path.is_file() else None
    for path in folder.rglob("*")
  }


def text_config(folder, **overrides):
  return tiny.make(
    "decoder",
    f"file:{folder}/{{split}}.txt",
    data__tokenizer="bpe",
    mesh__data=1,
    **({"data__vocab_size": 300} | overrides),
  )


@pytest.fixture
def texts(tmp_path):
  for split in ("train", "valid"):
    tiny.write(tmp_path / f"{split}.txt", TEXTS)
  return tmp_path


def fail(*args, **kwargs):
  raise ValueError("a mistake")


@pytest.mark.parametrize("place", ["new/deep", "notes"])
def test_start_that_fails_leaves_nothing_and_refuses_nothing(
  texts, monkeypatch, place
):
  (texts / "notes").mkdir()
  (texts / "notes" / "mine.txt").write_text("mine")
  before = everything(texts)
  wrong = text_config(texts, optim__warmup_steps=4)  # Found out late.
  with pytest.raises(ValueError, match="warmup_steps is 4"):
    runner.run(wrong, texts / place)
  assert everything(texts) == before
  # Another vocabulary and other texts are not refused for its sake.
  right = text_config(texts, data__vocab_size=290)
  monkeypatch.setattr(runner.Experiment, "start", fail)
  with pytest.raises(ValueError, match="a mistake"):
    runner.run(right, texts / place)
  assert everything(texts) == before


def test_start_that_fails_leaves_an_earlier_run_as_it_is(tmp_path):
  old = {"total_steps": 1, "task": {"name": "a"}, "data": {}}
  with Lock(tmp_path):
    workdir.claim(tmp_path, old, "print")
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 0.1}\n')
  before = everything(tmp_path)
  with pytest.raises(OSError, match="a fault"), Lock(tmp_path):
    # A longer run is welcome.
    workdir.claim(tmp_path, old | {"total_steps": 2}, "print")
    assert everything(tmp_path) != before
    raise OSError("a fault")
  assert everything(tmp_path) == before


@pytest.mark.slow
def test_refused_start_leaves_a_run_as_it_is(run):
  _, folder = run()
  before = everything(folder)
  with pytest.raises(workdir.WorkdirError, match="seed"):
    run(seed=1)
  assert everything(folder) == before


def test_start_that_was_killed_before_a_step_refuses_nothing(tmp_path, caplog):
  old = {"total_steps": 1, "seed": 1, "task": {"name": "a"}, "data": {}}
  workdir.claim(tmp_path, old, "other")
  for name in ("metrics.jsonl", "tokenizer.json", "mine.txt"):
    (tmp_path / name).touch()
  (tmp_path / "tokenizer_source.json").write_text("{}")
  with Lock(tmp_path):
    assert "ended before its first step" in caplog.text
    workdir.claim(tmp_path, old | {"seed": 2}, "print")
  left = {path.name for path in tmp_path.iterdir()}
  assert left == {".lock", "config.json", "mine.txt"}


def test_files_of_others_are_named_and_left(run, tmp_path, caplog):
  folder = tmp_path / "run"
  folder.mkdir()
  for name in "bdface":
    (folder / name).write_text(name)
  with Lock(folder):
    pass
  assert f"--workdir={folder} already holds a, b, c, d, e and 1 more" in (
    caplog.text
  )
  caplog.clear()
  workdir.claim(folder, {"total_steps": 1, "data": {}}, "print")
  (folder / "metrics.jsonl").write_text('{"step": 1}\n')
  with Lock(folder):  # What is there beside a run has been named before.
    pass
  assert not caplog.text
  assert {*"bdface"} < {path.name for path in folder.iterdir()}


def remove(folder):
  while folder.exists():  # Something may be written there just now.
    shutil.rmtree(folder, ignore_errors=True)


def replace(folder):
  folder.rename(folder.with_name("elsewhere"))
  folder.mkdir()
  (folder / "config.json").write_text("{}")


def empty(folder):
  for path in folder.iterdir():
    if not path.name.startswith("."):
      remove(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("change", [remove, replace, empty])
def test_folder_that_is_not_the_one_that_was_locked_is_named(tmp_path, change):
  folder = tmp_path / "run"
  lock = Lock(folder)
  lock.check()
  workdir.claim(
    folder, {"total_steps": 1, "task": {"name": "a"}, "data": {}}, "print"
  )
  lock.is_claimed = True
  lock.check()
  change(folder)
  named = folder / "config.json" if change is empty else folder
  with pytest.raises(
    workdir.WorkdirError, match=f"{named} was deleted or replaced"
  ):
    lock.check()
  lock.close()


def test_folder_that_is_gone_is_named_whatever_fails_first(tmp_path):
  folder = tmp_path / "run"
  with (
    pytest.raises(workdir.WorkdirError, match="run was deleted or replaced"),
    Lock(folder),
  ):
    remove(folder)
    raise OSError(f"{folder}/metrics.jsonl cannot be written")


def test_run_whose_folder_is_deleted_ends_at_the_next_save(
  run, monkeypatch, tmp_path
):
  real = hooks.CodeStatistics.__call__

  def call(self, step, state, metrics):
    real(self, step, state, metrics)
    if step == 6:
      saved = tmp_path / "run" / "checkpoints" / "000004" / "seal.json"
      while not saved.exists():
        time.sleep(0.01)
      remove(tmp_path / "run")

  monkeypatch.setattr(hooks.CodeStatistics, "__call__", call)
  with pytest.raises(workdir.WorkdirError, match="was deleted or replaced"):
    run()
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folder_that_goes_away_while_it_is_saved_is_noticed(
  run, monkeypatch, tmp_path
):
  real = bucket.write_text

  def write(path, text):
    real(path, text)
    if path.parent.name == "000012":
      remove(tmp_path / "run")

  monkeypatch.setattr(bucket, "write_text", write)
  with pytest.raises(workdir.WorkdirError, match="was deleted or replaced"):
    run()
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_folder_that_goes_away_before_the_result_is_noticed(
  run, monkeypatch, tmp_path
):
  real = runner.best_of

  def best_of(*args):
    remove(tmp_path / "run")
    return real(*args)

  monkeypatch.setattr(runner, "best_of", best_of)
  with pytest.raises(workdir.WorkdirError, match="was deleted or replaced"):
    run(checkpoint__keep_best=0)


@pytest.mark.slow
def test_link_to_a_folder_is_followed(run, tmp_path):
  (tmp_path / "real").mkdir()
  (tmp_path / "run").symlink_to("real")
  result, _ = run(total_steps=4)
  assert result["step"] == 4
  assert (tmp_path / "real" / "result.json").is_file()


@pytest.mark.parametrize("kind", ["file above", "broken link", "read only"])
def test_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, kind):
  folder = tmp_path / "run"
  if kind == "file above":
    folder.write_text("precious")
    folder /= "deep"
  elif kind == "broken link":
    folder.symlink_to("nowhere")
  else:
    real = pathlib.Path.mkdir

    def mkdir(path, *args, **kwargs):
      if path == folder:
        raise PermissionError(13, os.strerror(13), str(path))
      real(path, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
  with pytest.raises(
    workdir.WorkdirError, match=f"--workdir={folder} cannot be written: "
  ):
    Lock(folder)


def test_evaluation_is_not_lost_where_it_cannot_be_written(
  tmp_path, monkeypatch, caplog
):
  monkeypatch.setattr(workdir, "write_json", raise_read_only)
  workdir.write_evaluation(tmp_path, {"metrics": {}})
  assert "evaluation.json is not written" in caplog.text


def raise_read_only(path, content):
  raise OSError(30, os.strerror(30), str(path))
