"""The page of live runs: what it serves, and to whom."""

import fcntl
import http.client
import json
import os
import threading
import urllib.parse

import pytest

from bitnet_jax.programs import run_list
from bitnet_jax.report import watching
from tests.programs.comparing.conftest import write_run as write_run


@pytest.fixture
def served(tmp_path, write_run):
  """Returns the server of a folder with a finished and a live run."""
  root = tmp_path / "runs"
  write_run(root / "done", 0.9, seed=3)
  write_run(root / "sweep" / "a<b>&ü", None)
  (tmp_path / "secret.json").write_text("secret")
  with watching.Server(f"{root}") as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def ask(server, path, *, method="GET", host=None):
  """Returns status, headers and text of an answer."""
  connection = http.client.HTTPConnection(*server.server_address, timeout=10)
  try:
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()
  finally:
    connection.close()


def state(root):
  """Returns all files with their times and contents."""
  return {
    path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else 0)
    for path in (root, *root.rglob("*"))
  }


def test_page_and_its_files_are_served_on_loopback_only(served):
  assert served.server_address[0] == "127.0.0.1"
  status, headers, text = ask(served, "/")
  assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
  assert "connect-src 'self'" in headers["Content-Security-Policy"]
  assert headers["X-Content-Type-Options"] == "nosniff"
  for source in ("assets/style.css", "assets/watch.js", "assets/plotly.min.js"):
    assert source in text or "plotly" in source
    status, headers, content = ask(served, f"/{source}")
    assert status == 200
    assert content
  status, headers, text = ask(served, "/", method="HEAD")
  assert (status, text) == (200, "")


def test_runs_and_their_curves_are_served_and_nothing_is_written(served):
  before = state(served.root)
  _, _, text = ask(served, "/runs.json")
  found = {run["name"]: run for run in json.loads(text)}
  assert {*found} == {"done", "sweep/a<b>&ü"}
  assert found["done"]["state"] == "finished"
  for name in found:
    fields = urllib.parse.urlencode({"name": name})
    status, _, text = ask(served, f"/run.json?{fields}")
    assert status == 200
    record = json.loads(text)
    assert record["config"]["model"]["name"] == "mlp"
    assert record["curves"]["step"]
    assert "valid/accuracy" in record["metrics"]
  assert state(served.root) == before


def test_growing_metrics_are_read_up_to_the_last_complete_line(served):
  folder = served.root / "sweep" / "a<b>&ü"
  with (folder / "metrics.jsonl").open("a") as file:
    file.write('{"step": 500, "time": 9.0, "valid/loss": 0.125}\n{"step": 6')
  with (folder / ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    record = served.run("sweep/a<b>&ü")
  assert record["state"] == "running"
  assert (record["step"], record["metrics"]["valid/loss"]) == (500, 0.125)
  (folder / "metrics.jsonl").write_text('{"step": "x"}\n')
  assert "has no step" in served.run("sweep/a<b>&ü")["damage"]


def test_only_runs_that_changed_are_read_again(served, monkeypatch):
  monkeypatch.setattr(watching, "_LIST_SECONDS", -1)
  read = []
  describe = run_list.describe

  def counted(root, folder, seconds):
    read.append(folder.name)
    return describe(root, folder, seconds)

  monkeypatch.setattr(run_list, "describe", counted)
  live = served.root / "sweep" / "a<b>&ü"
  with (live / ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert len(served.runs()) == 2
    assert sorted(read) == [live.name, "done"]
    states = {run["name"]: run["state"] for run in served.runs()}
    assert states == {"done": "finished", "sweep/a<b>&ü": "running"}
    assert read[2:] == [live.name]
  assert {run["state"] for run in served.runs()} == {"finished", "stopped"}
  assert read[3:] == [live.name]
  served.runs()
  assert len(read) == 4
  with (live / "metrics.jsonl").open("a") as file:
    file.write('{"step": 700, "time": 9.0, "valid/accuracy": 0.99}\n')
  os.utime(live / "metrics.jsonl", (2e9, 2e9))
  assert next(run["best"] for run in served.runs()) == 0.99
  assert len(read) == 5


@pytest.mark.parametrize(
  "path",
  [
    "/../secret.json",
    "/assets/../../secret.json",
    "/%2e%2e/secret.json",
    "//secret.json",
    "/assets",
    "/run.json",
    "/run.json?name=..",
    "/run.json?name=../secret.json",
    "/run.json?name=%2e%2e%2fsecret.json",
    "/run.json?name=/etc",
    "/run.json?name=done%00",
    "/run.json?name=sweep",
    "/done/config.json",
  ],
)
def test_other_paths_are_not_found(served, path):
  status, _, text = ask(served, path)
  assert status == 404
  assert "secret" not in text


def test_other_hosts_and_methods_are_refused(served):
  port = served.server_port
  assert ask(served, "/runs.json", host="evil.example")[0] == 403
  assert ask(served, "/runs.json", host=f"evil.example:{port}")[0] == 403
  assert ask(served, "/runs.json", host=f"localhost:{port}")[0] == 200
  for method in ("POST", "PUT", "DELETE"):
    assert ask(served, "/runs.json", method=method)[0] == 501


def test_folder_that_is_not_there_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError, match="name one that holds runs"):
    watching.Server(tmp_path / "none")
