r"""Imports a decoder from Hugging Face transformers, Llama-like or BitNet.

bitnet-jax import --source=FOLDER --output=imported/model

Packed ternary codes become a frozen model:
bitnet-jax generate --frozen=imported/model --prompt="The "

Float weights, latent or of a full-precision network, become a checkpoint for a
warm start, by a config with the same sizes and vocabulary:
--config.init_from=imported/model \
  --config.data.tokenizer=tokenizers:imported/model/tokenizer.json
"""

import pathlib

from absl import flags

from bitnet_jax.export.imports import import_hf

_SOURCE = flags.DEFINE_string(
  "source", None, "Folder with config.json.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "Folder to write; it must not exist yet.", required=True
)


def main(argv):
  """Imports the model and prints a description."""
  del argv
  source = pathlib.Path(_SOURCE.value).expanduser()
  output = pathlib.Path(_OUTPUT.value).expanduser()
  print(import_hf(source, output))
