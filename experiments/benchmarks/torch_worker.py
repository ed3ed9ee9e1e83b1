"""Times PyTorch layers and networks; runs where PyTorch is installed.

``workers`` starts it with another Python; nothing imports it. Each
line of its input is a JSON object: {"make": {...}} builds a function and
answers with its number, {"run": number, "calls": n} calls it n times and
answers with the seconds. Kinds of functions:

  {"kind": "dense", "shape": [tokens, d_in, d_out], "layer": LAYER}
  {"kind": "mlp", "sizes": [784, 128, 10], "batch": 128, "layer": LAYER}
  {"kind": "stack", "blocks": 4, "width": 256, "hidden": 1024,
   "tokens": 2048, "layer": LAYER}
  {"kind": "decoder", "blocks": 4, "width": 256, "hidden": 1024, "heads": 4,
   "vocabulary": 1000, "batch": [8, 256], "layer": LAYER}

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


def make_layer(layer, d_in, d_out, *, bias=True):
  """Returns a layer."""
  if layer == "Linear":
    return nn.Linear(d_in, d_out, bias=bias)
  from bitlinear import bitlinear

  return bitlinear.BitLinear(d_in, d_out, bias=bias, weight_measure=layer)


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


class DecoderBlock(nn.Module):
  """Attention with rotary positions and a gated feed-forward layer."""

  def __init__(self, layer, width, hidden, heads, angles):
    super().__init__()
    self.heads, self.cos, self.sin = heads, angles.cos(), angles.sin()
    names = {n: (width, width) for n in ("query", "key", "value", "out")}
    names |= {n: (width, hidden) for n in ("gate", "up")}
    names["down"] = (hidden, width)
    self.layers = nn.ModuleDict(
      {n: make_layer(layer, *s, bias=False) for n, s in names.items()}
    )
    self.norms = nn.ModuleList(nn.RMSNorm(width, eps=1e-5) for _ in range(2))

  def rotate(self, x):
    """Rotates pairs of features by the angles of their positions."""
    first, second = x.chunk(2, -1)
    rotated = first * self.cos - second * self.sin
    return torch.cat((rotated, second * self.cos + first * self.sin), -1)

  def forward(self, x):
    """Maps [batch, length, width] to the same."""
    h = self.norms[0](x)
    query, key, value = (
      self.layers[n](h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
      for n in ("query", "key", "value")
    )
    y = nn.functional.scaled_dot_product_attention(
      self.rotate(query), self.rotate(key), value, is_causal=True
    )
    x = x + self.layers["out"](y.transpose(1, 2).flatten(2))
    h = self.norms[1](x)
    h = nn.functional.silu(self.layers["gate"](h)) * self.layers["up"](h)
    return x + self.layers["down"](h)


def decoder(blocks, width, hidden, heads, vocabulary, batch, layer):
  """Returns a training step of a causal language model."""
  half = width // heads // 2
  frequencies = 10_000.0 ** (-torch.arange(half) / half)
  angles = torch.outer(torch.arange(batch[1]), frequencies)
  module = nn.Sequential(
    nn.Embedding(vocabulary, width),
    *(DecoderBlock(layer, width, hidden, heads, angles) for _ in range(blocks)),
    nn.RMSNorm(width, eps=1e-5),
    make_layer(layer, width, vocabulary, bias=False),
  )
  tokens = torch.randint(vocabulary, (batch[0], batch[1] + 1))

  def loss(f):
    logits = f(tokens[:, :-1])
    return nn.functional.cross_entropy(
      logits.flatten(0, 1), tokens[:, 1:].flatten()
    )

  return train_step(module, loss)


KINDS = {"dense": dense, "mlp": mlp, "stack": stack, "decoder": decoder}


def main():
  """Answers until the input ends."""
  torch.set_num_threads(int(sys.argv[1]))
  torch.manual_seed(0)
  functions = []
  print(json.dumps({"version": torch.__version__}), flush=True)
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
