"""What ``guards_test`` builds besides the configs as they are.

By a name of its own, each case is a config, as ``name:variant``, and what is
changed in it. Files are those that ``guarded_data`` writes.
"""


def _data(**keys):
  return {f"data.{key}": value for key, value in keys.items()}


BYTES = _data(tokenizer="bytes", vocab_size=None)
LM = BYTES | _data(seq_len=16)
CUTS = _data(valid_fraction=0.2, test_fraction=0.2)
TEXTS = "file:data/texts"
GLUE = "glue_encoder:sst2"
MULTI = "multi30k_encoder_decoder:S"
PAIRS = _data(split_names=(), languages=("text", "other"))
TEXT_COLUMN = _data(columns=("text",), label="kind")
ARRAYS = "file:data/arrays"
MNIST = "mnist_mlp:S"
UNJUDGED = {"eval_every": 0, "checkpoint.keep_best": 0}
THREE = _data(num_classes=3)
VOCABULARIES = "data/tokenizers"
FILES = {
  "sentencepiece": f"sentencepiece:{VOCABULARIES}/small.model",
  "tokenizers": f"tokenizers:{VOCABULARIES}/tokenizer.json",
  "gpt2": f"gpt2:{VOCABULARIES}/gpt2_vocab.json,{VOCABULARIES}/gpt2_merges.txt",
  "bert": f"bert:{VOCABULARIES}/bert_base_uncased_vocab.txt",
}


def _table(ending, name, **keys):
  return name, _data(source=f"{TEXTS}/rows.{ending}", **keys) | CUTS


# By a name of its own: a config, and what is changed in it.
CASES = {
  # Sources of documents.
  "lines": (
    "pydoc_decoder:S",
    LM | _data(source=f"{TEXTS}/plain.txt", documents="lines"),
  ),
  "whole": ("pydoc_decoder:S", LM | _data(source=f"{TEXTS}/plain.txt")),
  "paragraphs": (
    "pydoc_decoder:S",
    LM | _data(source=f"{TEXTS}/paragraphs.txt", documents="paragraphs"),
  ),
  "marked": (
    "pydoc_decoder:S",
    LM | _data(source=f"{TEXTS}/marked.txt", documents="marked"),
  ),
  "documents of JSONL": (
    "pydoc_decoder:S",
    LM | _data(source=f"{TEXTS}/holes.jsonl.gz", skip_empty=True),
  ),
  "documents of TSV": (
    "pydoc_decoder:S",
    LM | _data(source=f"{TEXTS}/rows.tsv.xz", column="other"),
  ),
  # How documents become examples.
  "packed documents": ("pydoc_decoder:S", LM | _data(packing="documents")),
  "stride": ("pydoc_decoder:S", LM | _data(eval_stride=5)),
  "another split_seed": ("pydoc_decoder:S", LM | _data(split_seed=3)),
  "another seed": ("pydoc_decoder:S", LM | {"seed": 3}),
  "packed masked": (
    "wikitext2_encoder:S",
    _data(packing="documents", seq_len=48),
  ),
  "any number of predictions": (
    "wikitext2_encoder:S",
    {"task.predictions": None, "task.mask_rate": 0.4},
  ),
  "other masks": (
    "pydoc_encoder:S",
    LM | {"task.mask_share": 0.5, "task.random_share": 0.5},
  ),
  "other spans": (
    "pydoc_encoder_decoder:S",
    BYTES
    | _data(seq_len=24)
    | {"task.noise_density": 0.4, "task.mean_span": 1.5},
  ),
  # Vocabularies.
  "lower case": (
    "pydoc_decoder:S",
    _data(tokenizer="bpe", vocab_size=300, lowercase=True, seq_len=16),
  ),
  **{
    f"vocabulary {name}": (
      "pydoc_encoder_decoder:S",
      _data(tokenizer=spec, vocab_size=None, seq_len=16),
    )
    for name, spec in FILES.items()
  },
  "cased words": (
    GLUE,
    _data(tokenizer="wordpiece", vocab_size=200, lowercase=False),
  ),
  "padded vocabulary": (
    "pydoc_decoder:S",
    _data(tokenizer=FILES["gpt2"], vocab_size=320, seq_len=16),
  ),
  # Labelled texts.
  "classes of TSV": _table("tsv.xz", GLUE, columns=("text",), label="kind"),
  "classes in an order": _table(
    "jsonl",
    GLUE,
    columns=("other", "text"),
    label="kind",
    class_names=("c", "a", "b"),
  ),
  "numbers of JSONL": (
    "glue_encoder:stsb",
    _data(
      source=f"{TEXTS}/rows.jsonl",
      columns=("text", "other"),
      label="score",
      seq_len=16,
    )
    | CUTS,
  ),
  "classes of TextGCN": (
    GLUE,
    _data(source="textgcn:data/text_gcn/R8.raw", valid_fraction=0.2),
  ),
  "classes of docstrings": (
    GLUE,
    _data(source="embedded:docstrings", too_long="cut") | CUTS | BYTES,
  ),
  "bags of TSV": _table(
    "tsv.xz", "docstrings_mlp:S", column="text", label="kind"
  ),
  "bags with weights": ("docstrings_mlp:S", _data(weighting="tfidf")),
  "bags without ends": ("text_mlp:r8", _data(special_tokens=False)),
  "bags of TFDS": (
    "docstrings_mlp:S",
    _data(source="tfds:glue/cola", column="sentence") | CUTS,
  ),
  # Pairs.
  "pairs of JSONL": (MULTI, _data(source=f"{TEXTS}/rows.jsonl") | PAIRS | CUTS),
  "pairs of TSV": (
    MULTI,
    _data(source=f"{TEXTS}/rows.tsv.xz", input_len=8, target_len=9)
    | PAIRS
    | CUTS,
  ),
  "pairs of TFDS": (
    MULTI,
    _data(source="tfds:wmt/de-en", split_names=(), languages=("en", "de"))
    | CUTS,
  ),
  # Arrays.
  "images of a file": (MNIST, _data(source=f"{ARRAYS}/images.npz") | THREE),
  "images of a packed file": (
    MNIST,
    _data(source=f"{ARRAYS}/packed.npz") | THREE | CUTS,
  ),
  "features of a file": (MNIST, _data(source=f"{ARRAYS}/features.npz") | THREE),
  "images of all shapes": (
    MNIST,
    _data(source="tfds:shapes", image_size=6, random_crop=1) | THREE,
  ),
  "no validation": (MNIST, _data(valid_fraction=0.0) | UNJUDGED),
  # Graphs.
  "nodes of a file": (
    "planetoid_gnn:gcn",
    _data(source=f"{ARRAYS}/nodes.npz"),
  ),
  "nodes of a draw": (
    "karate_gnn:gcn",
    _data(train_per_class=5, valid_fraction=0.5, row_normalize=True),
  ),
  "graphs of a folder": (
    "graphs_gnn:gcn",
    _data(source=f"{ARRAYS}/graphs", batch_size=8, row_normalize=True) | THREE,
  ),
  "graphs with budgets": (
    "graphs_gnn:gcn",
    _data(max_degree=3, node_budget=1_500, edge_budget=6_000),
  ),
}

# Configs that ask their data, with data to ask.
ASKED = {
  "features:S": _data(source=f"{ARRAYS}/features.npz"),
  "graphs:S": _data(source=f"{ARRAYS}/graphs"),
  "images:S": _data(source=f"{ARRAYS}/packed.npz"),
  "lm:S": _data(source=f"{TEXTS}/plain.txt"),
  "nodes:S": _data(source=f"{ARRAYS}/nodes.npz"),
  "pairs:S": _data(source=f"{TEXTS}/rows.jsonl"),
  "texts:S": _data(source=f"{TEXTS}/rows.tsv.xz", label="kind"),
  "translate:S": _data(source=f"{TEXTS}/rows.tsv.xz"),
}

# The batches of the second of two processes, for every way to make them.
SHARED = {
  f"{name} of two": (name, {"mesh.data": 2})
  for name in (
    "digits_mlp:S",
    "graphs_gnn:gcn",
    "docstrings_mlp:S",
    GLUE,
    "pydoc_decoder:S",
    "pydoc_encoder:S",
    "pydoc_encoder_decoder:S",
    MULTI,
  )
}

# On published data, below the folder {data}.
REAL = {
  "mnist": ("mnist_mlp:S", _data(source="file:{data}/mnist/mnist.npz")),
  **{
    name: (
      f"{name}_cnn:B",
      _data(source=f"file:{{data}}/{name}_subset/{name}_subset.npz"),
    )
    for name in ("cifar10", "cifar100")
  },
  **{
    name: (
      "planetoid_gnn:gcn",
      _data(source=f"file:{{data}}/planetoid/{name}.npz"),
    )
    for name in ("cora", "citeseer", "pubmed")
  },
  **{
    variant: (
      f"text_mlp:{variant}",
      _data(
        source=f"textgcn:{{data}}/text_gcn/{name}",
        tokenizer="bert:{data}/tokenizers/bert_base_uncased_vocab.txt",
      ),
    )
    for variant, name in {
      "20ng": "20ng.clean",
      "mr": "mr.raw",
      "ohsumed": "ohsumed.raw",
      "r52": "R52.raw",
      "r8": "R8.raw",
    }.items()
  },
  **{
    task: (
      f"glue_encoder:{task}",
      _data(source=f"file:{{data}}/glue_small/{task}_{{split}}.tsv.gz", **keys),
    )
    for task, keys in {
      "cola": {},
      "sst2": {},
      "mrpc": {"valid_fraction": 0.1},
      "rte": {},
      "stsb": {"label": "score"},
      "wnli": {},
    }.items()
  },
  **{
    name: (
      f"{name}:S",
      _data(source="file:{data}/wikitext2/{split}.txt.xz"),
    )
    for name in ("wikitext2_decoder", "wikitext2_encoder")
  },
  "multi30k": (MULTI, _data(source="file:{data}/multi30k/{split}.{lang}.gz")),
  "tinystories": (
    "pydoc_decoder:S",
    BYTES
    | _data(
      source="file:{data}/tinystories_sample/stories.txt.xz",
      documents="marked",
      packing="documents",
    ),
  ),
  "tinyshakespeare": (
    "reloaded_decoder:12M",
    _data(
      source="file:{data}/tinyshakespeare/input.txt.gz",
      tokenizer="gpt2:{data}/tokenizers/gpt2_vocab.json,"
      "{data}/tokenizers/gpt2_merges.txt",
      vocab_size=None,
    )
    | CUTS,
  ),
  "spans with the vocabulary of T5": (
    "t5_encoder_decoder:base",
    _data(
      source="file:{data}/tinyshakespeare/input.txt.gz",
      tokenizer="sentencepiece:{data}/tokenizers/"
      "t5_cc_all_32000_100extra.sentencepiece.model",
      vocab_size=None,
    )
    | CUTS,
  ),
}
