"""Times PyTorch layers and networks; runs where PyTorch is installed.

Not imported by the rest: ``torch_baseline`` starts it with another Python. Each
line of its input is a JSON object: {"make": {...}} builds a function and
answers with its number, {"run": number, "calls": n} calls it n times and
answers with the seconds. Kinds of functions:

  {"kind": "dense", "shape": [tokens, d_in, d_out], "layer": LAYER}
  {"kind": "mlp", "sizes": [784, 128, 10], "batch": 128, "layer": LAYER}
  {"kind": "stack", "blocks": 4, "width": 256, "hidden": 1024,
   "tokens": 2048, "layer": LAYER}

LAYER is "Linear", or "AbsMean" or "AbsMedian": bitlinear's layer with that
measure. A dense step is forward and backward for a given cotangent; the others
are whole training steps with AdamW.
"""

import itertools
import json
import os
import sys
import time

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
from torch import nn


def make_layer(layer, d_in, d_out):
  """Returns a layer with a bias."""
  if layer == "Linear":
    return nn.Linear(d_in, d_out)
  from bitlinear import bitlinear

  return bitlinear.BitLinear(d_in, d_out, weight_measure=layer)


def dense(shape, layer):
  """Returns forward and backward of one layer."""
  tokens, d_in, d_out = shape
  module = make_layer(layer, d_in, d_out)
  x = torch.randn(tokens, d_in, requires_grad=True)
  g = torch.randn(tokens, d_out)

  def step():
    module.zero_grad()
    x.grad = None
    module(x).backward(g)

  return step


def train_step(module, loss):
  """Returns an update of all parameters of a module."""
  optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)

  def step():
    optimizer.zero_grad()
    loss(module).backward()
    optimizer.step()

  return step


def mlp(sizes, batch, layer):
  """Returns a training step of a classifier; its last layer is in float."""
  modules = []
  for d_in, d_out in itertools.pairwise(sizes[:-1]):
    modules += [make_layer(layer, d_in, d_out), nn.ReLU()]
  module = nn.Sequential(*modules, nn.Linear(*sizes[-2:]))
  x, y = torch.randn(batch, sizes[0]), torch.randint(sizes[-1], (batch,))
  return train_step(module, lambda f: nn.functional.cross_entropy(f(x), y))


class Block(nn.Module):
  """A feed-forward block with its residual connection."""

  def __init__(self, layer, width, hidden):
    super().__init__()
    self.up = make_layer(layer, width, hidden)
    self.down = make_layer(layer, hidden, width)

  def forward(self, x):
    """Maps [tokens, width] to the same."""
    return x + self.down(torch.relu(self.up(x)))


def stack(blocks, width, hidden, tokens, layer):
  """Returns a training step of feed-forward blocks."""
  module = nn.Sequential(*(Block(layer, width, hidden) for _ in range(blocks)))
  x, y = torch.randn(tokens, width), torch.randn(tokens, width)
  return train_step(module, lambda f: nn.functional.mse_loss(f(x), y))


KINDS = {"dense": dense, "mlp": mlp, "stack": stack}


def main():
  """Answers until the input ends."""
  torch.set_num_threads(int(sys.argv[1]))
  torch.manual_seed(0)
  functions = []
  print(json.dumps({"torch": torch.__version__}), flush=True)
  for line in sys.stdin:
    request = json.loads(line)
    if "make" in request:
      options = request["make"]
      functions.append(KINDS[options.pop("kind")](**options))
      answer = {"number": len(functions) - 1}
    else:
      function = functions[request["run"]]
      start = time.perf_counter()
      for _ in range(request["calls"]):
        function()
      answer = {"seconds": time.perf_counter() - start}
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  main()
