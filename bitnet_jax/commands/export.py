r"""Exports a trained network: packed, transformers, llama.cpp, StableHLO.

bitnet-jax export --workdir=runs/digits --format=packed \
  --output=frozen/digits

Formats:
  packed       ternary codes, five to a byte, for evaluate.py, generate.py and
               bitnet_jax.inference.load_frozen; prints its size
  hf           a decoder for transformers, packed; hf:bitlinear with reciprocal
               scales, hf:latent with latent weights in bfloat16
  gguf         a decoder for llama.cpp; gguf:tq2_0, gguf:tq1_0 or gguf:f16
  stablehlo    any network as a program, parameters included
  safetensors  latent weights of any network by path, in bfloat16

Every export is read back and compared.
"""

import pathlib

from absl import flags

from bitnet_jax.export.runs import export_run
from bitnet_jax.train.folder import bucket

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "Folder to write; it must not exist yet.", required=True
)
_FORMAT = flags.DEFINE_string("format", "packed", "Format, see above.")
_CHECKPOINT = flags.DEFINE_string(
  "checkpoint", "last", "Checkpoint to export: last, best or a step."
)


def main(argv):
  """Exports the model and prints the sizes of what was written."""
  del argv
  folder = bucket.place(_WORKDIR.value)
  output = pathlib.Path(_OUTPUT.value).expanduser()
  print(export_run(folder, output, _FORMAT.value, _CHECKPOINT.value))
