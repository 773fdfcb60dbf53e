"""A web server in a thread, for files of a folder."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Served:
    """What a server does, which a test may change, and what it was asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.ranges = True
        """Whether it sends parts of files."""
        self.stalls = set()
        """Names of files of which it sends half, and then nothing."""
        self.fails = {}
        """Name of a file -> status, and how many times still."""
        self.sent = []
        """Names of the files that were sent."""
        self.address = ""
        self.ended = threading.Event()


@contextmanager
def serving(folder):
    """A server of the files in a folder, on the loopback."""
    served = Served(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(head=True)

        def do_GET(self):
            self.answer()

        def answer(self, *, head=False):
            name = self.path.split("?")[0].lstrip("/")
            status, times = served.fails.get(name, (404, 0 if (folder / name).is_file() else 1))
            if times:
                if name in served.fails:
                    served.fails[name] = status, times - 1
                self.send_error(status)
                return
            content = (folder / name).read_bytes()
            begin, end, size = 0, len(content), len(content)
            part = self.headers.get("Range") if served.ranges else None
            if part:
                first, _, last = part.removeprefix("bytes=").partition("-")
                begin, end = int(first), min(int(last) + 1, size) if last else size
            self.send_response(206 if part else 200)
            if part:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            if served.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - begin))
            self.send_header("ETag", f'"{hash(content):x}"')
            self.end_headers()
            if head:
                return
            if name in served.stalls:
                self.wfile.write(content[: size // 2])
                served.ended.wait(30)
                self.close_connection = True
                return
            served.sent.append(name)
            self.wfile.write(content[begin:end])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        served.ended.set()
        server.shutdown()
        server.server_close()


def wait_until(true, seconds=10):
    """Wait for something that another thread does."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)
