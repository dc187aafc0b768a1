"""A proxy in front of the API that finds the request too slow, keeps two answers to itself, then turns it away twice, then
works: once for each idempotency key."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PASSED_ON = ("Content-Type", "Idempotency-Key", "Authorization")

# The attempts that are not passed on, with the status and the fields that they get: a proxy may send a date. 408 is the first,
# since whoever takes it for final has no lost answer yet after which they would ask again in any case.
TURNED_AWAY = {
    1: (408, {}),
    4: (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    5: (503, {"Retry-After": "1"}),
}


class Flaky(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1, in front of `upstream`."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = urlsplit(upstream).netloc
        self.seen: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"]
        attempt = self.server.seen[key] = self.server.seen.get(key, 0) + 1
        if attempt in TURNED_AWAY:
            return self.answer(*TURNED_AWAY[attempt], b"{}")
        status, headers, answer = self.ask(body)
        if attempt == 2:
            # The booking is made, and all that its buyer hears is a status that proxies have made up.
            return self.answer(520, {}, b"")
        if attempt == 3:
            self.close_connection = True
            return None
        return self.answer(status, headers, answer)

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=5)
        passed_on = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        upstream.request("POST", self.path, body, passed_on)
        response = upstream.getresponse()
        headers = {name: value for name, value in response.getheaders() if name.lower() != "content-length"}
        return response.status, headers, response.read()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The test says what went wrong."""
