"""A hub on this machine: the part of the hub's API that its client calls, served from folders.

It can be told to want a token, to know no such repository, to be down, and to break off in the
middle of a file. It keeps every request, so that a test can tell what was fetched.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = hashlib.sha1(b"a commit").hexdigest()
RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
API = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+?)(/(?P<verb>revision|tree)/(?P<revision>[^/]+))?")


@dataclass
class Hub:
    """What the server has, how it misbehaves, and what it was asked."""

    repositories: dict[str, Path] = field(default_factory=dict)
    revisions: tuple[str, ...] = ("main", COMMIT)
    gated: set[str] = field(default_factory=set)  # their lists are public, their files want a token
    down: bool = False
    breaks: dict[str, int] = field(default_factory=dict)  # file → after how many bytes to break off, once
    stuck: dict[str, int] = field(default_factory=dict)  # file → after how many bytes to break off, always
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # (method, path, range)
    address: str = ""

    def fetched(self, file: str) -> list[str | None]:
        """The ranges with which a file's content was asked for; None is the whole."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.endswith("/" + file)]


@contextmanager
def loopback_hub(**facts) -> Iterator[Hub]:
    hub = Hub(**facts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        """Nothing: a test's output is its own."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.down:
            return self._refuse(503)
        if match := API.fullmatch(path):
            return self._api(**match.groupdict())
        if match := RESOLVE.fullmatch(path):
            return self._file(**match.groupdict())
        return self._refuse(404, "RepoNotFound")

    def _refuse(self, status: int, code: str = "") -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True

    def _missing(self, repository: str, revision: str | None) -> bool:
        if repository not in self.hub.repositories:
            self._refuse(401, "RepoNotFound")  # the hub does not tell a private repository from none
        elif revision not in (None, *self.hub.revisions):
            self._refuse(404, "RevisionNotFound")
        else:
            return False
        return True

    def _api(self, repository: str, revision: str | None, verb: str | None) -> None:
        if self._missing(repository, revision):
            return
        paths = [path for path in sorted(self.hub.repositories[repository].rglob("*")) if path.is_file()]
        names = [str(path.relative_to(self.hub.repositories[repository])) for path in paths]
        if verb == "tree":
            answer = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                for name, path in zip(names, paths, strict=True)
            ]
        else:
            siblings = [{"rfilename": name} for name in names]
            answer = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, file: str) -> None:
        if self._missing(repository, revision):
            return
        if repository in self.hub.gated and not self.headers.get("Authorization"):
            return self._refuse(401, "GatedRepo")
        path = self.hub.repositories[repository] / file
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        body = path.read_bytes()
        headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(body))}
        headers["Accept-Ranges"] = "bytes"
        status = 200
        if self.command == "GET" and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")):
            start, end = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            status, body = 206, body[start : end + 1]
        cut = None
        if self.command == "GET":
            cut = self.hub.stuck.get(file, self.hub.breaks.pop(file, None))
        self._send(status, body, headers, cut)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
