"""Writes a trained network in a form that others run.

python experiments/export.py --workdir=runs/digits --format=packed \
  --output=frozen/digits

Forms:
  packed       ternary codes, five to a byte, for evaluate.py, generate.py and
               bitnet_jax.inference.load_frozen; prints how large it is
  hf           a decoder for transformers, packed; hf:bitlinear with reciprocal
               scales, hf:latent with latent weights in bfloat16
  gguf         a decoder for llama.cpp; gguf:tq2_0, gguf:tq1_0 or gguf:f16
  stablehlo    any network as a program with its parameters in it
  safetensors  latent weights of any network by path, in bfloat16

What is written is read back and compared.
"""

# First, so that Ctrl-C ends what follows with a line.
from bitnet_jax import program

# isort: split

import pathlib

from absl import flags

from bitnet_jax.export.runs import export_run
from bitnet_jax.train.folder import bucket

_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run.", required=True
)
_OUTPUT = flags.DEFINE_string(
  "output", None, "A folder that is not there yet.", required=True
)
_FORMAT = flags.DEFINE_string("format", "packed", "Which form, see above.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "last, best or a step.")


def main(argv):
  """Writes the model, and prints what was written."""
  del argv
  folder = bucket.place(_WORKDIR.value)
  output = pathlib.Path(_OUTPUT.value).expanduser()
  print(export_run(folder, output, _FORMAT.value, _CHECKPOINT.value))


if __name__ == "__main__":
  program.run(main)
