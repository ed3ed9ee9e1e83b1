"""Writes what two PyTorch layers compute, for the tests beside this.

Needs torch, bitlinear (2.4.6) and transformers, and not JAX:

  python -m tests.parity.make_goldens [FOLDER]

Inputs and weights of the bfloat16 cases are bfloat16 values; the layers run in
float32 on them. Weights are stored [in, out].
"""

import os
import pathlib
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"


import numpy as np
import torch

from tests.parity import goldens

TESTDATA = pathlib.Path(__file__).parents[1] / "testdata"
CASES = {"bitlinear": 64, "bitnet_transformers": 52}
# A value to be rounded this close to a half may go either way in float32.
NEAR_HALF = 1e-4
# At most one case in so many may hold such a value; the seeds are chosen so.
NEAR_HALF_CASES = 50
SEEDS = {"bitlinear": 0, "bitnet_transformers": 3}


def draw(rng, i):
  """Case number ``i``: inputs, weights, the gradient of the output."""
  # Mostly small: the more values, the likelier one of them is near a half.
  d_in, d_out = 1 + int(70 * rng.random() ** 3), int(rng.integers(1, 9))
  if i < 4:
    d_in, d_out = ((1, 1), (1, 4), (5, 1), (3, 3))[i]
  if d_in == 2:
    # A layer norm maps two values to -1 and 1, so that the gradient of the
    # input is what rounding leaves of a difference.
    d_in = 6
  batch = tuple(int(n) for n in rng.integers(1, 3, size=1 + i % 3))
  bfloat16 = i % 4 == 3
  x = rng.normal(size=(*batch, d_in)) * rng.choice([0.1, 1, 10])
  w = rng.normal(size=(d_in, d_out)) / np.sqrt(d_in)
  if i % 8 == 5:
    w = rng.uniform(-1, 1, size=w.shape) / np.sqrt(d_in)
  arrays = {"x": x, "w": w, "g": rng.normal(size=(*batch, d_out))}
  if i % 3 != 2:
    arrays["bias"] = rng.normal(size=d_out)
  case = {name: to_float32(a, bfloat16) for name, a in arrays.items()}
  return case | {
    "bfloat16": bfloat16,
    "measure": i % 2,
    "sides": (0, 0, 0, 1, 2)[i % 5],
  }


def to_float32(a, through_bfloat16):
  a = torch.tensor(a, dtype=torch.float32)
  return (a.bfloat16().float() if through_bfloat16 else a).numpy()


def run(layer, case):
  """Adds output and gradients of a layer that holds the case's weights."""
  layer.weight.data = torch.tensor(case["w"].T.copy())
  if "bias" in case:
    layer.bias.data = torch.tensor(case["bias"])
  x = torch.tensor(case["x"], requires_grad=True)
  y = layer(x)
  y.backward(torch.tensor(case["g"]))
  case["y"], case["dx"] = y.detach().numpy(), x.grad.numpy()
  case["dw"] = layer.weight.grad.numpy().T
  if "bias" in case:
    case["dbias"] = layer.bias.grad.numpy()


def near_half(values):
  values = values.abs()
  return (values - values.floor() - 0.5).abs() < NEAR_HALF


def note_near_halves(case, x, x_factor, w_factor):
  """Notes what is about to be rounded close to a half, in float64."""
  x, w = x.double(), torch.tensor(case["w"]).double()
  case["near_half_tokens"] = np.zeros(x.shape[:-1], bool)
  case["near_half_weight"] = False
  if x_factor is not None:
    near = near_half(x * x_factor.double()).any(-1)
    case["near_half_tokens"] = near.numpy()
  if w_factor is not None:
    # Beyond 1 the codes are clipped, whichever way they are rounded.
    values = (w * float(w_factor)).abs()
    near = near_half(values) & (values < 1)
    case["near_half_weight"] = bool(near.any())


def bitlinear_case(rng, i):
  from bitlinear import bitlinear

  case = draw(rng, i)
  sides = goldens.SIDES[case["sides"]]
  measure = ("AbsMean", "AbsMedian")[case["measure"]]
  layer = bitlinear.BitLinear(
    *case["w"].shape,
    bias="bias" in case,
    weight_measure=None if sides == "acts" else measure,
    activation_measure=None if sides == "weights" else "AbsMax",
    # Without an activation measure the raw input is used.
    norm=None if sides == "weights" else "LayerNorm",
  )
  run(layer, case)
  x = torch.tensor(case["x"])
  x = x if sides == "weights" else layer.norm(x)
  factors = []
  for measure, values, bits, per_token in (
    (layer.activation_measure, x, layer.activation_range, True),
    (layer.weight_measure, layer.weight, layer.weight_range, False),
  ):
    factors.append(
      None
      if measure is None
      else bitlinear.scale(values, bits, measure, per_token, layer.eps).detach()
    )
  note_near_halves(case, x, *factors)
  return case


def transformers_case(rng, i):
  from transformers.integrations import bitnet

  case = draw(rng, i) | {"measure": 0, "sides": 0}
  d_in, d_out = case["w"].shape
  bias = "bias" in case
  layer = bitnet.AutoBitLinear(d_in, d_out, bias=bias, online_quant=True)
  run(layer, case)
  x, w = torch.tensor(case["x"]), torch.tensor(case["w"].T.copy())
  x_factor = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
  w_factor = 1.0 / w.abs().mean().clamp(min=1e-5)
  note_near_halves(case, x, x_factor, w_factor)
  if d_out % bitnet.VALUES_PER_ITEM == 0:
    packed = bitnet.BitLinear(d_in, d_out, bias=bias, dtype=torch.float32)
    codes = (w * w_factor).round().clamp(-1, 1)
    packed.weight = bitnet.pack_weights(codes)
    packed.weight_scale = w_factor.reshape(1)
    if bias:
      packed.bias = torch.tensor(case["bias"])
    case["packed_y"] = packed(x).numpy()
  return case


MAKERS = {"bitlinear": bitlinear_case, "bitnet_transformers": transformers_case}


def make(name):
  """Returns the cases of one layer."""
  rng = np.random.default_rng(SEEDS[name])
  cases = [MAKERS[name](rng, i) for i in range(CASES[name])]
  near = sum(
    c["near_half_weight"] or bool(c["near_half_tokens"].any()) for c in cases
  )
  if near * NEAR_HALF_CASES > len(cases):
    raise ValueError(f"{near} cases of {name} lie near a half: change its seed")
  return cases


def main(folder=TESTDATA):
  """Writes both files."""
  for name in MAKERS:
    goldens.save(pathlib.Path(folder) / f"{name}.npz", make(name))


if __name__ == "__main__":
  main(*sys.argv[1:])
