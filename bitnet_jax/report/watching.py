"""Shows live runs in a browser of this machine; changes nothing.

The server answers GET and HEAD on the loopback address only. It never makes a
path from an address: a run is looked up by its name among those that the folder
holds, and a file of the page among its assets.
"""

import http
import http.server
import json
import math
import pathlib
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from bitnet_jax.files import PathLike, local_path
from bitnet_jax.programs import run_list
from bitnet_jax.report import pages, site
from bitnet_jax.studies import records
from bitnet_jax.train.folder import listing, metrics

HOST = "127.0.0.1"
_LIST_SECONDS = 1.0
_PARTS = ("train", "valid", "test")  # groups of metrics that are shown
_POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
  " img-src 'self' data: blob:; connect-src 'self'; base-uri 'none';"
  " form-action 'none'; frame-ancestors 'none'"
)
_KINDS = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
}


class Server(http.server.ThreadingHTTPServer):
  """Serves the page of the runs below a folder, until it is shut down."""

  daemon_threads = True

  def __init__(self, root: PathLike, port: int = 0):
    """Opens the port.

    Args:
      root: folder of runs, or a run folder.
      port: of the loopback address; 0 takes a free one.

    Raises:
      FileNotFoundError: if there is no such folder.
      OSError: if the port is taken.
    """
    self.root = local_path(root)
    listing.find(self.root)
    self.files = {
      "/": pages.render("watch.html", folder=self.root.name or f"{self.root}"),
      **{f"/{name}": text for name, text in site.assets().items()},
    }
    self._lock, self._listed = threading.Lock(), -math.inf
    self._runs: dict[pathlib.Path, tuple[float, dict[str, Any]]] = {}
    super().__init__((HOST, port), _Handler)

  @property
  def address(self) -> str:
    """The address of the page."""
    return f"http://{HOST}:{self.server_port}/"

  def runs(self) -> list[dict[str, Any]]:
    """Returns what is known of each run, see ``run_list.list_runs``.

    Only runs that are at work or wrote something since the last call are read
    again: a sweep may have hundreds.
    """
    with self._lock:
      if time.monotonic() - self._listed > _LIST_SECONDS:
        folders = listing.find(self.root)
        self._runs = {f: self._entry(f, self._runs.get(f)) for f in folders}
        self._listed = time.monotonic()
      found = sorted(self._runs.values(), key=lambda run: -run[0])
    return [entry for _, entry in found]

  def _entry(
    self, folder: pathlib.Path, old: tuple[float, dict[str, Any]] | None
  ) -> tuple[float, dict[str, Any]]:
    """Returns when a run last wrote, and what is known of it."""
    seconds = listing.seconds_of(folder)
    # A run that is killed writes nothing more.
    if old is not None and old[0] == seconds and old[1]["state"] != "running":
      return old
    return seconds, run_list.describe(self.root, folder, seconds)

  def run(self, name: str) -> dict[str, Any]:
    """Returns a run in the form of a record of a study.

    Raises:
      KeyError: if the folder holds no run of this name.
    """
    folders = {_name(self.root, f): f for f in listing.find(self.root)}
    return describe(folders[name])


def _name(root: pathlib.Path, folder: pathlib.Path) -> str:
  """Returns the name of a run, as ``run_list.list_runs`` has it."""
  return folder.name if folder == root else f"{folder.relative_to(root)}"


def describe(folder: pathlib.Path) -> dict[str, Any]:
  """Returns metrics, curves, codes and config of a run, also of a live one."""
  run = listing.read(folder)
  try:
    lines = metrics.read_metrics(folder)
  except (OSError, ValueError) as error:
    return {"state": "damaged", "damage": f"{error}", "metrics": {}}
  last: dict[str, Any] = {}
  for line in lines:
    last |= {k: v for k, v in line.items() if k.partition("/")[0] in _PARTS}
  result: Mapping[str, Any] = run.result
  step = result.get("step") or (lines[-1]["step"] if lines else run.step)
  return {
    "state": run.state,
    "damage": run.damage,
    "config": dict(run.config),
    "metrics": {**last, **result.get("metrics", {})},
    "best": result.get("best"),
    "step": step,
    "total_steps": run.config.get("total_steps"),
    "seed": run.config.get("seed"),
    "num_params": result.get("num_params"),
    "wall_time_s": lines[-1]["time"] if lines else None,
    "curves": records.curves_of(lines, records.CURVES),
    "layers": records.layers_of(lines),
    "diverged": None,
    "versions": result.get("versions") or {},
  }


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers one request."""

  protocol_version = "HTTP/1.1"
  server_version, sys_version = "bitnet-jax", ""
  timeout = 30

  def do_GET(self) -> None:
    """Sends a file of the page, or what is known of the runs, as JSON."""
    server = self.server
    assert isinstance(server, Server)
    # A page of another site may lead a name of its own to this address.
    hosts = [f"{name}:{server.server_port}" for name in (HOST, "localhost")]
    if self.headers.get("Host") not in hosts:
      self._send(http.HTTPStatus.FORBIDDEN, "the page has another address")
      return
    address = urllib.parse.urlsplit(self.path)
    if address.path in server.files:
      text = server.files[address.path]
      kind = pathlib.PurePath(address.path).suffix or ".html"
      self._send(http.HTTPStatus.OK, text, kind)
      return
    fields = dict(urllib.parse.parse_qsl(address.query))
    answers: dict[str, Callable[[], Any]] = {
      "/runs.json": server.runs,
      "/run.json": lambda: server.run(fields.get("name", "")),
    }
    if address.path not in answers:
      self._send(http.HTTPStatus.NOT_FOUND, "there is no such page")
      return
    try:
      text = json.dumps(answers[address.path](), default=str)
    except KeyError:
      self._send(http.HTTPStatus.NOT_FOUND, "there is no run of this name")
    except (OSError, ValueError) as error:
      self._send(http.HTTPStatus.INTERNAL_SERVER_ERROR, f"{error}")
    else:
      self._send(http.HTTPStatus.OK, text, ".json")

  do_HEAD = do_GET

  def _send(self, status: int, text: str, kind: str = "") -> None:
    content = text.encode("utf-8", errors="replace")
    self.send_response(status)
    name = _KINDS.get(kind, "text/plain")
    self.send_header("Content-Type", f"{name}; charset=utf-8")
    self.send_header("Content-Length", f"{len(content)}")
    self.send_header("Content-Security-Policy", _POLICY)
    self.send_header("Cross-Origin-Resource-Policy", "same-origin")
    self.send_header("Referrer-Policy", "no-referrer")
    self.send_header("X-Content-Type-Options", "nosniff")
    self.send_header("Cache-Control", "no-store")
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(content)

  def log_message(self, format: str, *args: Any) -> None:
    """Prints nothing: a page asks every few seconds."""
    del format, args
