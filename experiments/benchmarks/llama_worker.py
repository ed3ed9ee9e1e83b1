"""Times llama.cpp; runs where llama-cpp-python is installed.

``workers`` starts it with another Python; nothing imports it. Each line of its
input is a JSON object: {"make": {...}} loads a model and answers with the
number of a function, {"run": number, "calls": n} calls it n times and answers
with the seconds. A function is

  {"path": GGUF, "prompt": [ids], "tokens": n, "length": tokens of context}

which reads the prompt and then writes n tokens, always the likeliest.
"""

import json
import sys
import time

import llama_cpp
import numpy as np


def writing(path, prompt, tokens, length, threads):
  """Returns a function that writes."""
  model = llama_cpp.Llama(
    path,
    n_ctx=length,
    n_batch=512,
    n_ubatch=512,
    n_threads=threads,
    n_threads_batch=threads,
    verbose=False,
  )
  context, size = model.ctx, model.n_vocab()

  def write():
    model.reset()
    model.eval(prompt)
    for _ in range(tokens - 1):
      logits = llama_cpp.llama_get_logits_ith(context, -1)
      token = int(np.argmax(np.ctypeslib.as_array(logits, (size,))))
      model.eval([token])

  return write


def main():
  """Answers until the input ends."""
  threads, functions = int(sys.argv[1]), []
  print(json.dumps({"version": llama_cpp.__version__}), flush=True)
  for line in sys.stdin:
    request = json.loads(line)
    if "make" in request:
      functions.append(writing(**request["make"], threads=threads))
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
