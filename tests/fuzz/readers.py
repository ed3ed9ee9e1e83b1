"""The readers that are tried, and small files that they read."""

import dataclasses
import functools
import gzip
import hashlib
import json
import lzma
import os
import signal
from collections.abc import Callable

import numpy as np

from tests.fuzz import mutations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
  """What is tried.

  Attributes:
    write: puts files into a folder, which are read without an error.
    read: reads them.
    fixed: files that are not damaged.
    damage: by name, how a file is damaged whose ending does not tell.
    repair: makes files agree with a damaged one again, so that checks behind a
      sum are reached; by default nothing.
    speaks: parts of a good message besides the names of the files.
  """

  write: Callable
  read: Callable
  fixed: tuple[str, ...] = ()
  damage: dict[str, Callable] = dataclasses.field(default_factory=dict)
  repair: Callable | None = None
  speaks: tuple[str, ...] = ()

  def mutate(self, folder, rng):
    """Damages one of the files of a folder."""
    names = [
      path.relative_to(folder).as_posix()
      for path in sorted(folder.rglob("*"))
      if path.is_file()
    ]
    name = rng.choice([name for name in names if name not in self.fixed])
    path = folder / name
    content = path.read_bytes()
    if mutations.put_in_place(path, content, rng):
      return
    inner = mutations.BY_ENDING.get(path.with_suffix("").suffix)
    damage = self.damage.get(name) or mutations.BY_ENDING[path.suffix]
    if inner and path.suffix in (".gz", ".xz"):
      damage = functools.partial(damage, inner=inner)
    path.write_bytes(damage(content, rng))
    if self.repair and rng.random() < 0.9:
      self.repair(folder)


def _sources(folder, name="set.npz", **options):
  from bitnet_jax.data import splits
  from bitnet_jax.data.views import arrays

  cuts = splits.Cuts(valid_fraction=0.2, test_fraction=0.2)
  dataset = arrays.load(f"file:{folder / name}", cuts, **options)
  return dataset.num_classes


def _write_images(folder):
  rng = np.random.default_rng(0)
  np.savez(
    folder / "set.npz",
    x_train=rng.integers(256, size=(12, 3, 4), dtype=np.uint8),
    y_train=np.arange(12) % 3,
    x_test=rng.integers(256, size=(6, 3, 4), dtype=np.uint8),
    y_test=np.arange(6) % 3,
  )


def _write_packed_images(folder):
  rng = np.random.default_rng(0)
  images = rng.integers(256, size=(3, 12, 3, 4), dtype=np.uint8)
  names = np.array(["a", "bc", "d"])
  np.savez_compressed(
    folder / "set.npz",
    x_train_res=images,
    y_train=np.arange(12) % 3,
    x_test_res=images,
    y_test=np.arange(12) % 3,
    label_names=names,
  )


TEXT = "".join(f"line {i} of é text\n" for i in range(20))


def _write_text(name, content, pack=bytes):
  return lambda folder: (folder / name).write_bytes(pack(content.encode()))


def _read_corpus(name, **options):
  def read(folder):
    from bitnet_jax.data import splits
    from bitnet_jax.data.views import documents

    source, cuts = f"file:{folder / name}", splits.Cuts(valid_fraction=0.2)
    return documents.load(source, cuts, **options).fingerprint

  return read


TABLE = "text\tother\tlabel\n" + "".join(
  f"some text {i}\tmore {i}\t{i % 3}\n" for i in range(15)
)
LINES = "".join(
  json.dumps({"text": f"some {i} é", "other": "b", "label": i % 3}) + "\n"
  for i in range(15)
)


def _read_labeled(name, *, regression=False):
  def read(folder):
    from bitnet_jax.data import splits
    from bitnet_jax.data.views import labeled_texts

    return labeled_texts.load(
      f"file:{folder / name}",
      splits.Cuts(valid_fraction=0.2),
      columns=("text", "other"),
      regression=regression,
    ).fingerprint

  return read


COMMAS = TABLE.replace("\t", ",").replace("more 3", '"more, ""3""\n"')
NUMBERS = "a;b;kind\n" + "".join(f"{i};{-i}.5;{i % 3}\n" for i in range(15))


def _write_parquet(columns):
  """Columns in dictionaries and not, whole and packed, in two groups."""

  def write(folder):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(
      pyarrow.table(columns),
      folder / "a.parquet",
      row_group_size=8,
      use_dictionary=["label", "kind"],
      compression={name: "none" for name in columns} | {"text": "zstd"},
    )

  return write


_TEXTS = {
  "text": [f"some {i} é" for i in range(15)],
  "other": [f"more {i}" for i in range(15)],
  "label": [i % 3 for i in range(15)],
}
_FEATURES = {
  "a": [float(i) for i in range(15)],
  "b": list(range(15)),
  "kind": ["xyz"[i % 3] for i in range(15)],
}


def _read_features(name):
  return functools.partial(_sources, name=name, label="kind")


def _write_text_gcn(folder):
  documents = "".join(f"words of document {i}\n" for i in range(12))
  index = "".join(
    f"{i}\t{'test' if i % 3 == 0 else 'train'}\t{'ab'[i % 2]}\n"
    for i in range(12)
  )
  (folder / "set.clean.txt.xz").write_bytes(lzma.compress(documents.encode()))
  (folder / "set.index.tsv.gz").write_bytes(gzip.compress(index.encode()))


def _read_text_gcn(folder):
  from bitnet_jax.data import splits
  from bitnet_jax.data.views import labeled_texts

  return labeled_texts.load(
    f"textgcn:{folder / 'set.clean'}", splits.Cuts(valid_fraction=0.2)
  ).fingerprint


def _train(kind):
  from bitnet_jax.data.text import training

  roles = ("pad", "eos", "unk", "bos", "mask", "cls", "sep")
  return training.train(
    TEXT.splitlines(keepends=True) * 3,
    spec=kind,
    vocab_size=300 if kind == "unigram" else 290,
    lowercase=False,
    names=[*(f"<{role}>" for role in roles), "<extra_id_0>"],
  )


def _write_vocabulary(kind, name):
  return lambda folder: (folder / name).write_bytes(_train(kind))


_SAID = "Some text, of línes \0 with\n\n 123 <extra_id_0> and ﷺ aaaaaaaaaaaaaa!"


def _tokenizer(spec):
  def read(folder):
    from bitnet_jax.data.text.tokenizers import load_tokenizer

    parts = [str(folder / part) for part in spec[1:]]
    tokenizer = load_tokenizer(
      f"{spec[0]}:{','.join(parts)}", texts=tuple, needs=("pad",)
    )
    ids = tokenizer.encode(_SAID)
    tokenizer.decode(ids)
    return tokenizer.decode(np.arange(min(tokenizer.vocab_size, 20)))

  return read


def _write_gpt2(folder):
  content = json.loads(_train("bpe"))["model"]
  (folder / "vocab.json").write_text(json.dumps(content["vocab"]))
  merges = [m if isinstance(m, str) else " ".join(m) for m in content["merges"]]
  (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def _write_bert(folder):
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "text", "##s", *"abcd"]
  (folder / "vocab.txt").write_text("\n".join(words) + "\n")


def _write_saved(folder):
  """A vocabulary in a run's folder, and one beside a model."""
  from bitnet_jax.data.text import saved, tokenizers

  options = {"vocab_size": 290, "lowercase": False}
  lines = TEXT.splitlines()
  tokenizer = tokenizers.load_tokenizer(
    "bpe", texts=lambda: lines, cache=folder, **options
  )
  (folder / "beside").mkdir()
  entry = saved.save_vocabulary(
    tokenizer, "bpe", folder / "beside", cache=folder
  )
  (folder / "beside" / "entry.json").write_text(json.dumps(entry))


def _read_saved(folder):
  from bitnet_jax.data.text import saved, tokenizers
  from bitnet_jax.files import read_json

  tokenizers.load_tokenizer(
    "bpe", texts=TEXT.splitlines, cache=folder, vocab_size=290, lowercase=False
  )
  entry = read_json(folder / "beside" / "entry.json")
  return saved.load_vocabulary(entry, folder / "beside").encode(_SAID)


def _write_planetoid(folder):
  from tests.data.sources import planetoid_test as published

  for part, value in published.make_values()[0].items():
    (folder / f"ind.cora.{part}").write_bytes(published.dump(value))
  index = "".join(f"{i}\n" for i in published.TEST_INDEX)
  (folder / "ind.cora.test.index").write_text(index)


def _read_planetoid(folder):
  from bitnet_jax.data.sources import planetoid
  from bitnet_jax.data.views import nodes

  members = planetoid.read(folder, "cora", num_valid=2)
  return nodes.make_dataset(members, where=str(folder))


_PICKLES = ("x", "tx", "allx", "y", "ty", "ally", "graph")


def _write_nodes(*, sparse):
  def write(folder):
    features = {"features": np.arange(18, dtype=np.float32).reshape(6, 3)}
    if sparse:
      features = {
        "data": np.ones(5, np.float32),
        "indices": np.array([0, 2, 1, 0, 1], np.int32),
        "indptr": np.array([0, 1, 2, 2, 3, 4, 5], np.int32),
        "shape": np.array([6, 3]),
      }
    np.savez(
      folder / "graph.npz",
      edges=np.array([[0, 1], [1, 2], [3, 4], [4, 5]]),
      labels=np.arange(6) % 2,
      has_label=np.ones(6, bool),
      train_idx=np.array([0, 1]),
      val_idx=np.array([2]),
      test_idx=np.array([3, 4]),
      **features,
    )

  return write


def _read_nodes(folder):
  from bitnet_jax.data import graphs, splits
  from bitnet_jax.data.views import nodes

  dataset = nodes.load(
    f"file:{folder / 'graph.npz'}",
    splits.Cuts(valid_fraction=0.2),
    train_per_class=1,
    row_normalize=True,
  )
  return graphs.dense(dataset.graph.features)


def _write_graphs(folder):
  for i in range(6):
    more = {"num_nodes": np.array(4)}
    np.savez(
      folder / f"{i}.npz",
      edges=np.array([[0, 1], [1, 2 + i % 2]]),
      label=np.array(i % 2),
      **more,
    )


def _read_graphs(folder):
  from bitnet_jax.data import splits
  from bitnet_jax.data.views import graph_sets

  cuts = splits.Cuts(valid_fraction=0.2, test_fraction=0.2)
  return graph_sets.load(f"file:{folder}", cuts, max_degree=4).num_classes


def _write_tensors(folder):
  from safetensors.numpy import save_file

  arrays = {f"a{i}": np.ones((i + 1, 2), np.float32) for i in range(4)}
  arrays["codes"] = np.zeros(3, np.uint8)
  save_file(arrays, folder / "a.safetensors", {"scales": "{}"})


def _read_tensors(folder):
  from bitnet_jax.inference.tensors import load_tensors

  return load_tensors(folder / "a.safetensors")


def _write_hf(folder):
  from bitnet_jax.export import write_hf
  from tests.export.decoder import make_frozen

  sizes = dict(hidden=16, mlp_width=24, num_layers=1, vocab_size=24)
  write_hf(folder / "one", *make_frozen(**sizes, num_heads=2, num_kv_heads=1))
  for file in (folder / "one").iterdir():
    file.rename(folder / file.name)
  (folder / "one").rmdir()
  index = {"weight_map": {"a": "model.safetensors"}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _read_hf(folder):
  from bitnet_jax.export import read_hf

  return read_hf(folder)


def _write_frozen(folder):
  from bitnet_jax.inference import save_frozen
  from tests.inference.storage_test import RECORD, small

  save_frozen(folder, *small(), RECORD)


def _read_frozen(folder):
  from bitnet_jax.inference import load_frozen

  return load_frozen(folder)


def _agree(folder):
  """Gives a description the sum of the arrays."""
  try:
    content = json.loads((folder / "model.json").read_bytes())
    data = (folder / "model.safetensors").read_bytes()
    content["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(content))
  except (OSError, ValueError, TypeError, RecursionError):
    pass


def _write_run(folder):
  from bitnet_jax.train import runner
  from bitnet_jax.train.folder import workdir
  from tests.train.conftest import CONFIGS, SMALL

  config = runner.load_config(str(CONFIGS / "digits_mlp.py"), SMALL)
  workdir.write_config(folder, config, "sha256:0 vocabulary sha256:1")


def _read_run(folder):
  from bitnet_jax.train.config.settings import parse_settings
  from bitnet_jax.train.experiment import TASKS
  from bitnet_jax.train.folder import warm_start, workdir

  config, fingerprint = workdir.read_run(folder)
  workdir.check_is_run(folder)
  workdir.read_run_id(folder)
  try:
    parse_settings(config, TASKS)
  except ValueError as error:  # It names the key, as for one of a flag.
    raise ValueError(f"config: {error}") from error
  warm_start.vocabulary_of(fingerprint)
  workdir.claim(folder, config, fingerprint)
  return config


def _write_facts(folder):
  """A run of a language model, without a checkpoint."""
  from bitnet_jax.train import build, runner
  from bitnet_jax.train.folder import workdir
  from tests.train import tiny

  source = tiny.write(folder / "texts.txt", TEXT.splitlines())
  config = tiny.make("decoder", source, data__valid_fraction=0.2)
  experiment = build.build(config)
  with workdir.Lock(folder) as lock:
    runner._claim(experiment, lock)
  (folder / "texts.txt").unlink()


def _read_facts(folder):
  from bitnet_jax.train.folder import data_facts, trained

  opened = trained.open_without_data(folder)
  if opened is not None:
    setup, tokenizer = opened
    data_facts.claim(folder, setup.task.facts, tokenizer, setup.settings.data)
  return opened


def _write_results(folder):
  metrics = {"test/accuracy": 0.5, "valid/loss": 1.5}
  result = {"run_id": "0" * 12, "step": 5, "config": {}, "metrics": metrics}
  (folder / "result.json").write_text(json.dumps(result))
  lines = [{"step": i, "time": i / 2, "train/loss": 1.0} for i in range(9)]
  for name in ("metrics.jsonl", "results.jsonl"):
    (folder / name).write_text("".join(json.dumps(x) + "\n" for x in lines))


def _read_results(folder):
  from bitnet_jax.train.folder import records, workdir
  from bitnet_jax.train.folder.metrics import MetricsWriter

  workdir.read_result(folder)
  records.load(folder / "results.jsonl")
  MetricsWriter(folder, restored_step=5).close()


def _write_checkpoints(folder):
  from bitnet_jax.train.folder import seals

  for step in (5, 10):
    path = folder / "checkpoints" / f"{step:06d}"
    (path / "state").mkdir(parents=True)
    (path / "state" / "array.txt").write_text("numbers")
    content = {
      "format": seals.FORMAT,
      "step": step,
      "progress": {"best": 0.5, "best_step": step, "stale": 0},
      "metrics": {"valid/accuracy": 0.5},
      "sha256": {
        "state/array.txt": hashlib.sha256(b"numbers").hexdigest(),
      },
    }
    _seal(path, content)


def _seal(path, content):
  text = json.dumps(content, sort_keys=True)
  seal = {
    "content": content,
    "sha256": hashlib.sha256(text.encode()).hexdigest(),
  }
  (path / "seal.json").write_text(json.dumps(seal))


def _seal_again(folder):
  """Gives what is in a seal its sum."""
  for path in (folder / "checkpoints").iterdir():
    try:
      seal = json.loads((path / "seal.json").read_bytes())
      _seal(path, seal["content"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
      pass


def _read_checkpoints(folder):
  from bitnet_jax.train.folder import checkpoint, seals

  options = checkpoint.CheckpointOptions(
    keep_last=2, keep_best=1, metric="valid/accuracy", mode="max"
  )
  checkpoints = checkpoint.Checkpoints.of_run(folder, options)
  checkpoints.best_step()
  step = checkpoints._find_latest()
  if step is not None:
    seals.read_progress(checkpoints._folder(step))
  for step in (5, 10):
    checkpoints._check_undamaged(step)


PARAGRAPHS = TEXT.replace("9 of", "9\n\nof")
MARKED = TEXT.replace(" of", "\n<|endoftext|>")

READERS = {
  "images": Reader(write=_write_images, read=_sources),
  "packed images": Reader(write=_write_packed_images, read=_sources),
  "lines": Reader(write=_write_text("a.txt", TEXT), read=_read_corpus("a.txt")),
  "paragraphs, packed": Reader(
    write=_write_text("a.txt.gz", PARAGRAPHS, gzip.compress),
    read=_read_corpus("a.txt.gz", documents="paragraphs"),
  ),
  "marked, packed": Reader(
    write=_write_text("a.txt.xz", MARKED, lzma.compress),
    read=_read_corpus("a.txt.xz", documents="marked"),
  ),
  "tsv": Reader(write=_write_text("a.tsv", TABLE), read=_read_labeled("a.tsv")),
  "tsv, packed": Reader(
    write=_write_text("a.tsv.xz", TABLE, lzma.compress),
    read=_read_labeled("a.tsv.xz", regression=True),
  ),
  "csv": Reader(
    write=_write_text("a.csv", COMMAS), read=_read_labeled("a.csv")
  ),
  "csv, packed": Reader(
    write=_write_text("a.csv.gz", NUMBERS, gzip.compress),
    read=_read_features("a.csv.gz"),
  ),
  "parquet": Reader(
    write=_write_parquet(_TEXTS), read=_read_labeled("a.parquet")
  ),
  "parquet of numbers": Reader(
    write=_write_parquet(_FEATURES), read=_read_features("a.parquet")
  ),
  "jsonl": Reader(
    write=_write_text("a.jsonl", LINES), read=_read_labeled("a.jsonl")
  ),
  "jsonl, packed": Reader(
    write=_write_text("a.jsonl.gz", LINES, gzip.compress),
    read=_read_labeled("a.jsonl.gz", regression=True),
  ),
  "textgcn": Reader(
    write=_write_text_gcn, read=_read_text_gcn, speaks=("set.",)
  ),
  "tokenizer.json, bpe": Reader(
    write=_write_vocabulary("bpe", "tokenizer.json"),
    read=_tokenizer(("tokenizers", "tokenizer.json")),
  ),
  "tokenizer.json, wordpiece": Reader(
    write=_write_vocabulary("wordpiece", "tokenizer.json"),
    read=_tokenizer(("tokenizers", "tokenizer.json")),
  ),
  "sentencepiece": Reader(
    write=_write_vocabulary("unigram", "a.model"),
    read=_tokenizer(("sentencepiece", "a.model")),
    speaks=("sentencepiece",),
  ),
  "gpt2": Reader(
    write=_write_gpt2, read=_tokenizer(("gpt2", "vocab.json", "merges.txt"))
  ),
  "bert": Reader(write=_write_bert, read=_tokenizer(("bert", "vocab.txt"))),
  "saved vocabularies": Reader(
    write=_write_saved, read=_read_saved, speaks=("saved vocabulary",)
  ),
  "planetoid": Reader(
    write=_write_planetoid,
    read=_read_planetoid,
    damage={f"ind.cora.{part}": mutations.pickle for part in _PICKLES},
  ),
  "graph": Reader(write=_write_nodes(sparse=False), read=_read_nodes),
  "sparse graph": Reader(write=_write_nodes(sparse=True), read=_read_nodes),
  "graphs": Reader(write=_write_graphs, read=_read_graphs),
  "safetensors": Reader(write=_write_tensors, read=_read_tensors),
  "hf": Reader(write=_write_hf, read=_read_hf),
  "frozen": Reader(write=_write_frozen, read=_read_frozen, repair=_agree),
  "config.json": Reader(
    write=_write_run, read=_read_run, speaks=("config", "workdir")
  ),
  "data_facts.json": Reader(
    write=_write_facts, read=_read_facts, fixed=("config.json", ".lock")
  ),
  "results": Reader(write=_write_results, read=_read_results),
  "seals": Reader(
    write=_write_checkpoints,
    read=_read_checkpoints,
    fixed=tuple(f"checkpoints/0000{n}/state/array.txt" for n in ("05", "10")),
    repair=_seal_again,
    speaks=("checkpoint",),
  ),
}


def _fail(folder):
  """Has one fault or another."""
  kind = (folder / "a.txt").read_bytes()
  if kind == b"0":
    raise ValueError("something is wrong somewhere")
  if kind == b"1":
    bytearray(2**31)
  if kind == b"2":
    os.kill(os.getpid(), signal.SIGSEGV)
  if kind == b"3":  # as after too long a time
    os.kill(os.getpid(), signal.SIGALRM)


# One with faults, to be noticed.
FAULTY = Reader(
  write=_write_text("a.txt", "whole"),
  read=_fail,
  damage={"a.txt": lambda data, rng: b"%d" % rng.randrange(4)},
)
