"""The HTTP of the Hubs on loopback: what comes, what goes, and what goes wrong between."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: Mapping[str, str]


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
        reset: whether the connection is then reset instead of closed.
        pause: seconds before it ends.
        whole: whether a file is sent from its beginning, whatever part is asked for.
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
    reset: bool = False
    pause: float = 0
    whole: bool = False
    damage: bool = False
    lost: bool = False
    before: Callable[[], object] | None = None
    times: int = 1


class Handler(BaseHTTPRequestHandler):
    """Receives a request whole, notes it, and answers.

    Attributes:
        asked: every request, of the server.
        asked_path: path of the request, as it came.
        query: of the request.
        content: of the request.
    """

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
        if self.receive():
            self.route()

    def receive(self) -> bool:
        """Read what was sent; whether it is to be answered."""
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.content = self._chunks()
        return True

    def route(self) -> None:
        """Answer the request."""
        raise NotImplementedError

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def send_bytes(self, content: bytes, headers: Mapping[str, str], rate: int | None = None) -> None:
        """Answer with bytes, or with those from the place on that is asked for.

        Args:
            content: the bytes.
            headers: of the answer.
            rate: bytes a second; as fast as it goes where ``None``.
        """
        wanted = self.headers.get("Range", "").removeprefix("bytes=").partition("-")[0]
        if not wanted:
            self.send(200, content, headers, rate)
            return
        start = int(wanted)
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.send(206, content[start:], {**headers, **span}, rate)

    def send_json(self, value: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def fail(self, status: int, code: str = "", message: str = "") -> None:
        """Answer with an error, and the Hub's name and words for it."""
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.send(status, b'{"error": "no"}', {name: value for name, value in headers.items() if value})

    def send(self, status: int, content: bytes, headers: Mapping[str, str], rate: int | None = None) -> None:
        """Answer."""
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.write(content, rate)

    def write(self, content: bytes, rate: int | None) -> None:
        """Send what the answer holds."""
        for start in range(0, len(content), _CHUNK_BYTES):
            self.wfile.write(content[start : start + _CHUNK_BYTES])
            if rate:
                time.sleep(_CHUNK_BYTES / rate)


class FaultyHandler(Handler):
    """Lets the next fault have its way with each request.

    Attributes:
        faults: what goes wrong, of the server.
    """

    faults: list[Fault]

    def receive(self) -> bool:
        """As of any, unless it is cut or refused."""
        self._fault = self._next_fault()
        if self._fault.before:
            self._fault.before()
        if self._fault.cut is not None and self.command in ("PUT", "POST"):
            self.rfile.read(self._fault.cut)
            self._hang_up()
            return False
        super().receive()
        if self._fault.whole:
            del self.headers["Range"]
        if self._fault.status:
            self.send(self._fault.status, self._fault.body.encode(), self._fault.headers)
        return not self._fault.status

    def send(self, status: int, content: bytes, headers: Mapping[str, str], rate: int | None = None) -> None:
        """As any, unless it is lost or damaged."""
        if self._fault.lost:
            self._hang_up()
            return
        if self._fault.damage and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        super().send(status, content, headers, rate)

    def write(self, content: bytes, rate: int | None) -> None:
        """As any, unless it is cut."""
        super().write(content[: self._fault.cut], rate)
        if self._fault.cut is not None:
            self.close_connection = True
            time.sleep(self._fault.pause)
        if self._fault.reset:
            time.sleep(0.2)  # what was sent arrives before
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def _next_fault(self) -> Fault:
        for fault in self.faults:
            if fault.times and fault.method == self.command and re.search(fault.path, unquote(self.asked_path)):
                fault.times -= 1
                return fault
        return Fault("", "")

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
