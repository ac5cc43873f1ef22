"""A tracking server that fails as it is told: in front of a real one, or of nothing."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DROPPED = ("connection", "content-length", "host", "transfer-encoding")  # headers of one connection alone


class Fault:
    """What is wrong with the server now, and how often it was asked."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.uri = f"http://127.0.0.1:{server.server_address[1]}"
        self.upstream: int | None = None  # port of the real server
        self.status: int | None = None  # the answer to everything
        self.page = b'{"error_code": "INTERNAL_ERROR", "message": "out of order"}'
        self.delay = 0.0
        self.healthy_for: int | None = None  # metric batches until every answer is 500
        self.unknown: str | None = None  # addresses with this word are unknown to the server: 404
        self.asked = 0

    def spoil(self, path: str) -> None:
        self.asked += 1
        time.sleep(self.delay)
        if self.healthy_for is not None and path.endswith("log-batch"):
            self.healthy_for -= 1
            if self.healthy_for < 0:
                self.status = 500


@contextmanager
def faulty_server(port: int = 0) -> Iterator[Fault]:
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.fault = Fault(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.fault
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # a connection for each request: a refusal is seen at once

    def answer(self) -> None:
        fault: Fault = self.server.fault
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault.spoil(self.path)
        if fault.unknown and fault.unknown in self.path:
            self._send(404, [], b"<h1>Not Found</h1>")
            return
        if fault.status or fault.upstream is None:
            self._send(fault.status or 500, [], fault.page)
            return
        upstream = http.client.HTTPConnection("127.0.0.1", fault.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
        upstream.request(self.command, self.path, content, headers)
        answer = upstream.getresponse()
        self._send(answer.status, answer.getheaders(), answer.read())
        upstream.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        try:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in DROPPED:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # who asked has gone

    def log_message(self, *words: object) -> None:
        """Say nothing on the terminal."""
