"""An S3 server on loopback (moto's, in this process), and a way to it that can be cut."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

NAME = "faces"
KEYS = {"AWS_ACCESS_KEY_ID": "a-key-of-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests"}
SETTINGS = {**KEYS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "2"}


logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else a line for each request


class _SerialPuts:
    """Handles one PUT at a time: on S3 checking a condition and writing are atomic, in moto they are not."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app, self.lock, self.deaf = app, threading.Lock(), False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self.deaf:  # as servers that do not support them
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with self.lock if environ["REQUEST_METHOD"] == "PUT" else contextlib.nullcontext():
            return list(self.app(environ, start_response))


class Server:
    """Its address and a client of its own."""

    def __init__(self) -> None:
        self.app = _SerialPuts(DomainDispatcherApplication(create_backend_app))
        self.server = make_server("127.0.0.1", 0, self.app, threaded=True)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        keys = {name.lower(): value for name, value in KEYS.items()}
        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)
        self.client.create_bucket(Bucket=NAME)

    def names(self, prefix: str = "") -> list[str]:
        """The keys that begin so."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=NAME, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def read(self, key: str) -> bytes:
        """An object."""
        return bytes(self.client.get_object(Bucket=NAME, Key=key)["Body"].read())

    def write(self, key: str, data: bytes) -> None:
        """Write over an object, as nobody should."""
        self.client.put_object(Bucket=NAME, Key=key, Body=data)

    def empty(self) -> None:
        """Delete everything."""
        for key in self.names():
            self.client.delete_object(Bucket=NAME, Key=key)

    def stop(self) -> None:
        """Be gone."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Proxy:
    """A TCP way to the server that counts the bytes sent to it and can be cut, at once or after so many more."""

    def __init__(self, port: int) -> None:
        self.target, self.cut_after = port, None  # type: int, int | None
        self.sent = self.received = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes any more."""
        return self.cut_after is not None and self.sent >= self.cut_after

    def cut(self, after: int = 0) -> None:
        """Let `after` more bytes pass towards the server; then end all connections and take no other."""
        with self._lock:
            self.cut_after = self.sent + after
        if after == 0:
            self._end()

    def mend(self) -> None:
        """Let all pass again."""
        self.cut_after = None

    def stop(self) -> None:
        """Be gone."""
        self._socket.close()
        self._end()

    def _end(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client_side, _ = self._socket.accept()
            except OSError:
                return
            if self.is_cut:
                client_side.close()
                continue
            server_side = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                self._open |= {client_side, server_side}
            threading.Thread(target=self._pass, args=(client_side, server_side, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server_side, client_side, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(65536):
                with self._lock:
                    self.sent += len(data) if up else 0
                    self.received += 0 if up else len(data)
                if self.is_cut:
                    break
                target.sendall(data)
        except OSError:
            pass
        if self.is_cut:
            self._end()
        else:
            for connection in (source, target):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()
                with self._lock:
                    self._open.discard(connection)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server that is gone in the end."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()
