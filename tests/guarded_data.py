"""Small data sets for ``guards_test``, the same on every machine.

``write`` puts them where the configs look for theirs, below the working
directory; ``prepared`` stands in for the sets of TensorFlow Datasets. All
numbers come from ``RandomState``, whose stream never changes. To change any
of this is to record the guards anew.
"""

import functools
import gzip
import json
import lzma
import pathlib
import sysconfig
import types
import zlib

import numpy as np
import scipy.sparse
import sentencepiece
import tensorflow_datasets as tfds
import tokenizers

SYLLABLES = "ba ce di fo gu ka le mi no ru sa te vi zo é ü ß 東".split()
_MODULES = (
  "_pydecimal",
  "asyncio",
  "email",
  "importlib",
  "logging",
  "multiprocessing",
  "unittest",
  "xml",
)
_GLUE = {
  "cola": ("sentence",),
  "sst2": ("sentence",),
  "mrpc": ("sentence1", "sentence2"),
  "qqp": ("question1", "question2"),
  "rte": ("sentence1", "sentence2"),
  "stsb": ("sentence1", "sentence2"),
  "wnli": ("sentence1", "sentence2"),
}
_IMAGES = {
  "mnist": ((28, 28, 1), 10, 400),
  "cifar10": ((32, 32, 3), 10, 400),
  "cifar100": ((32, 32, 3), 100, 2_000),
  "shapes": ((None, None, 3), 3, 60),
}


def random(name):
  """Returns a random state of its own for each name."""
  return np.random.RandomState(zlib.crc32(name.encode()))


@functools.cache
def _words():
  rng = random("words")
  return [
    "".join(SYLLABLES[i] for i in rng.randint(len(SYLLABLES), size=n))
    for n in rng.randint(1, 4, size=400)
  ]


def sentence(rng, least=3, most=14):
  """Returns a sentence of words of which few are frequent."""
  words, count = _words(), rng.randint(least, most)
  chosen = [words[int(len(words) * u**3)] for u in rng.random_sample(count)]
  if rng.randint(3) == 0:
    chosen.insert(1, str(rng.randint(2_000)))
  end = ".?!"[rng.randint(3)]
  return " ".join([chosen[0].capitalize(), *chosen[1:]]) + end


def sentences(name, count):
  """Returns different texts for different names."""
  rng = random(name)
  return [sentence(rng) for _ in range(count)]


def articles(name, count):
  """Returns one text with titles and blank lines, as WikiText has them."""
  rng, lines = random(name), []
  for _ in range(count):
    lines += ["", f" = {sentence(rng, 1, 3)} = ", ""]
    lines += [f" {sentence(rng)} {sentence(rng)} " for _ in range(5)]
  return "\n".join(lines) + "\n"


def pydoc_topics():
  """Returns what stands in for the help texts of Python."""
  rng = random("topics")
  return {
    f"topic{i}": "\n".join(sentence(rng) for _ in range(rng.randint(2, 20)))
    for i in range(40)
  }


def get_path(folder):
  """Returns ``sysconfig.get_path``, but for the library of ``docstrings``."""
  real = sysconfig.get_path

  def get_path(name, *args, **kwargs):
    if name == "stdlib":
      return str(folder / "library")
    return real(name, *args, **kwargs)

  return get_path


def _put(path, content):
  """Writes a file, packed if its name says so."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(content, str):
    content = content.encode()
  pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
  path.write_bytes(pack(content))


def _lines(texts):
  return "".join(f"{text}\n" for text in texts)


def write(folder, dump):
  """Writes all files.

  Args:
    folder: where "data" and "library" come to be.
    dump: gives the bytes of a pickle of Python 2.
  """
  data = folder / "data"
  for name in ("wikitext2", "books"):
    for split, count in (("train", 60), ("valid", 9), ("test", 7)):
      text = articles(f"{name} {split}", count)
      _put(data / name / f"{split}.txt.xz", text)
  for split, count in (("train", 150), ("val", 20), ("test_2016_flickr", 21)):
    for language in ("en", "de"):
      texts = sentences(f"{split}.{language}", count)
      _put(data / "multi30k" / f"{split}.{language}.gz", _lines(texts))
  _write_texts(data / "texts")
  _write_text_gcn(data / "text_gcn")
  _write_vocabularies(data / "tokenizers")
  _write_arrays(data / "arrays")
  _write_planetoid(data / "prepared" / "downloads" / "manual", dump)
  _write_library(folder / "library")


def _write_texts(folder):
  texts = sentences("texts", 80)
  _put(folder / "plain.txt", _lines(texts))
  _put(folder / "paragraphs.txt", "\n".join(_lines([t, t]) for t in texts))
  _put(folder / "marked.txt", "<|endoftext|>\n".join(texts))
  holes = [t if i % 5 else " " for i, t in enumerate(texts)]
  _put(folder / "holes.jsonl.gz", _jsonl({"text": t} for t in holes))
  rng = random("rows")
  rows = [
    {
      "text": text,
      "other": sentence(rng),
      "kind": "bac"[rng.randint(3)],
      "score": round(float(rng.random_sample()), 3),
    }
    for text in texts
  ]
  _put(folder / "rows.jsonl", _jsonl(rows))
  lines = ["\t".join(rows[0])]
  lines += ["\t".join(map(str, row.values())) for row in rows]
  _put(folder / "rows.tsv.xz", _lines(lines))


def _jsonl(rows):
  return _lines(json.dumps(row, ensure_ascii=False) for row in rows)


def _write_text_gcn(folder):
  names = ("20ng.clean", "mr.raw", "ohsumed.raw", "R52.raw", "R8.raw")
  for name in names:
    base, which = name.split(".")
    texts, rng = sentences(name, 90), random(base)
    index = [
      f"{i}\t{'test' if i % 4 == 0 else 'train'}\tclass{rng.randint(4)}"
      for i in range(len(texts))
    ]
    _put(folder / f"{base}.{which}.txt.xz", _lines(texts))
    _put(folder / f"{base}.index.tsv.gz", _lines(index))


def _write_vocabularies(folder):
  letters = sorted({*"".join(_words()).lower(), *"0123456789.?!"})
  special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  tokens = [*special, *letters, *(f"##{c}" for c in letters)]
  tokens += sorted({word for word in _words()[:40] if len(word) > 1})
  _put(folder / "bert_base_uncased_vocab.txt", _lines(tokens))
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  merges = ["b a", "c e", "d i", "Ġ ba", "Ġ ce"]
  joined = [merge.replace(" ", "") for merge in merges]
  tokens = [*alphabet, *joined, "<|endoftext|>"]
  ids = {token: i for i, token in enumerate(tokens)}
  _put(folder / "gpt2_vocab.json", json.dumps(ids))
  _put(folder / "gpt2_merges.txt", _lines(["#version: 0.2", *merges]))
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab=ids, merges=[tuple(merge.split()) for merge in merges]
    )
  )
  level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.pre_tokenizer = level
  tokenizer.decoder = tokenizers.decoders.ByteLevel()
  tokenizer.add_special_tokens(["<|endoftext|>"])
  _put(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
  with (folder / "small.model").open("wb") as stream:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(sentences("sentencepiece", 200)),
      model_writer=stream,
      vocab_size=90,
      hard_vocab_limit=False,
      num_threads=1,
      minloglevel=2,
    )


def _write_arrays(folder):
  folder.mkdir(parents=True)
  rng = random("arrays")
  images = rng.randint(256, size=(60, 6, 5)).astype(np.uint8)
  labels = np.arange(60) % 3
  np.savez(
    folder / "images.npz",
    **{"x_train": images[:40], "y_train": labels[:40]},
    **{"x_test": images[40:], "y_test": labels[40:]},
  )
  np.savez(
    folder / "packed.npz",
    **{"x_train_res": images.reshape(3, 20, 6, 5), "y_train": labels[:20]},
    **{"x_test_res": images.reshape(3, 20, 6, 5), "y_test": labels[:20]},
    label_names=np.array(["a", "bc", "d"]),
  )
  np.savez(
    folder / "features.npz",
    x_train=rng.random_sample((60, 7)).astype(np.float32),
    y_train=labels,
    x_test=rng.random_sample((20, 7)).astype(np.float32),
    y_test=labels[:20],
  )
  np.savez(
    folder / "nodes.npz",
    edges=rng.randint(40, size=(90, 2)),
    features=rng.randint(2, size=(40, 8)),
    labels=np.arange(40) % 3,
    train_idx=np.arange(12),
    val_idx=np.arange(12, 24),
    test_idx=np.arange(24, 40),
  )
  for i in range(24):
    split = "train" if i < 18 else "test"
    path = folder / "graphs" / split / f"{i:02}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    n = rng.randint(4, 12)
    np.savez(
      path,
      edges=rng.randint(n, size=(2 * n, 2)),
      label=np.array(i % 3),
      features=rng.random_sample((n, 4)),
    )


def _write_planetoid(folder, dump):
  known, others, tests, classes = 20, 530, 40, 7
  rng = random("planetoid")
  features = rng.randint(4, size=(others + tests, 12)) // 3
  features = scipy.sparse.csr_matrix(features.astype(np.float32))
  labels = np.eye(classes, dtype=np.int32)
  labels = labels[rng.randint(classes, size=others + tests)]
  graph = {
    i: rng.randint(others + tests, size=3).tolist()
    for i in range(others + tests)
  }
  parts = {
    "x": features[:known],
    "allx": features[:others],
    "tx": features[others:],
    "y": labels[:known],
    "ally": labels[:others],
    "ty": labels[others:],
    "graph": graph,
  }
  for part, value in parts.items():
    _put(folder / f"ind.cora.{part}", dump(value))
  index = others + rng.permutation(tests)
  _put(folder / "ind.cora.test.index", _lines(index.tolist()))


def _write_library(folder):
  """Writes modules with docstrings."""
  for name in _MODULES:
    rng = random(name)
    code = [f'"""About {name}: {sentence(rng)}"""']
    for i in range(rng.randint(12, 20)):
      text = f'"""{sentence(rng)}\n\n  {sentence(rng)}\n  """'
      code.append(f"def f{i}():\n  {text}")
    single = name == "_pydecimal"
    path = f"{name}.py" if single else f"{name}/inner/module.py"
    _put(folder / path, "\n\n".join(code) + "\n")


def prepared(name, data_dir=None):
  """Stands in for ``tensorflow_datasets.builder``."""
  del data_dir
  base, _, config = name.partition("/")
  if base in _IMAGES:
    features, examples = _images(base)
  elif base == "glue":
    features, examples = _labelled(config)
  elif base == "c4":
    features = {"text": tfds.features.Text(), "url": tfds.features.Text()}
    examples = {
      split: [
        {"text": " ".join(sentences(f"c4 {split} {i}", 6)).encode(), "url": b""}
        for i in range(count)
      ]
      for split, count in (("train", 80), ("validation", 10))
    }
  else:
    languages = config.split("-")
    features = tfds.features.Translation(languages)
    columns = [[t.encode() for t in sentences(k, 60)] for k in languages]
    examples = {
      "train": [
        dict(zip(languages, texts, strict=True))
        for texts in zip(*columns, strict=True)
      ]
    }
  info = types.SimpleNamespace(
    features=features
    if isinstance(features, tfds.features.FeaturesDict)
    else tfds.features.FeaturesDict(features),
    splits=dict.fromkeys(examples),
    full_name=f"{name}/1.0.0",
    supervised_keys=tuple(config.split("-")) if base == "wmt" else None,
  )
  return types.SimpleNamespace(
    info=info,
    data_dir="nowhere",
    as_data_source=lambda split: examples[split],
  )


def _images(name):
  shape, classes, count = _IMAGES[name]
  rng, examples = random(name), {}
  for split, size in (("train", count), ("test", count // 4)):
    examples[split] = []
    for i in range(size):
      own = [n or int(rng.randint(5, 9)) for n in shape]
      image = rng.randint(256, size=own).astype(np.uint8)
      examples[split].append({"image": image, "label": np.int64(i % classes)})
  return {
    "image": tfds.features.Image(shape=shape),
    "label": tfds.features.ClassLabel(num_classes=classes),
  }, examples


def _labelled(task):
  columns, rng, examples = _GLUE[task], random(task), {}
  is_number = task == "stsb"
  for split, count in (("train", 90), ("validation", 30), ("test", 10)):
    examples[split] = []
    for _ in range(count):
      label = (
        np.float32(rng.random_sample() * 5) if is_number else rng.randint(2)
      )
      if split == "test":
        label = -1
      texts = {column: sentence(rng).encode() for column in columns}
      examples[split].append({**texts, "label": label})
  label = tfds.features.ClassLabel(names=["no", "yes"])
  if is_number:
    label = tfds.features.Scalar(np.float32)
  texts = {column: tfds.features.Text() for column in columns}
  return {**texts, "label": label}, examples
