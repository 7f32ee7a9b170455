"""The HTTP of the contract Hub: what comes, what goes, and what goes wrong between."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.server import Asked


@dataclass
class Fault:
    """Something that goes wrong with the next requests of a kind.

    Attributes:
        method: of the requests.
        path: a regular expression that is searched in their path.
        status: of the answer.
        headers: of the answer.
        body: of the answer.
        cut: bytes after which the connection ends: of what comes, or of what is sent. ``None``: an answer is given.
        damage: whether the last byte of what is sent is another one.
        lost: whether the request is carried out, and the answer never comes.
        before: done before the request is answered as always: somebody else is quicker.
        times: how often.
    """

    method: str
    path: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"error": "no"}'
    cut: int | None = None
    damage: bool = False
    lost: bool = False
    before: Callable[[], object] | None = None
    times: int = 1


class FaultyHandler(BaseHTTPRequestHandler):
    """Receives a request whole, lets the next fault have its way, and answers.

    Attributes:
        faults: what goes wrong, of the server.
        asked: every request, of the server.
        query: of the request.
        content: of the request.
    """

    faults: list[Fault]
    asked: list[Asked]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class names it so
        """Nothing: a test reads ``asked``."""

    def _handle(self) -> None:
        split = urlsplit(self.path)
        self.asked_path, self.query = split.path, parse_qs(split.query)
        self.asked.append(Asked(self.command, unquote(self.asked_path), dict(self.headers)))
        self._fault = self._next_fault()
        if self._fault and self._fault.before:
            self._fault.before()
        if self._fault and self._fault.cut is not None and self.command in ("PUT", "POST"):
            self.rfile.read(self._fault.cut)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.content = self._chunks()
        if self._fault and self._fault.status:
            self.send(self._fault.status, self._fault.body.encode(), self._fault.headers)
        else:
            self.route()

    def route(self) -> None:
        """Answer the request."""
        raise NotImplementedError

    def _next_fault(self) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, unquote(self.asked_path)):
                fault.times -= 1
                return fault
        return None

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def send_bytes(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Answer with bytes, or with those from the place on that is asked for."""
        wanted = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        if not wanted:
            self.send(200, content, headers)
            return
        start = int(wanted)
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.send(206, content[start:], {**headers, **span})

    def send_json(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def fail(self, status: int, code: str = "") -> None:
        """Answer with an error, and the Hub's name for it."""
        self.send(status, b'{"error": "no"}', {"X-Error-Code": code} if code else {})

    def send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        """Answer."""
        fault = self._fault or Fault("", "")
        if fault.lost:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault.damage and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: fault.cut])
        if fault.cut is not None:
            self.close_connection = True
