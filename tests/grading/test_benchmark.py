"""The benchmarks of grading say in one line why an engine cannot be measured."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from rubric_rl import ROOT


class Busy(BaseHTTPRequestHandler):
    """An engine that refuses to empty its cache, as SGLang does while it has requests."""

    def do_GET(self):
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b"Flush cache failed:\nrunning requests\n")

    do_POST = do_GET

    def log_message(self, *args):
        """Silent."""


@pytest.fixture
def busy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Busy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_busy_engine_is_one_line(busy):
    script = ROOT / "tests" / "benchmarks" / "grading.py"
    command = [sys.executable, str(script), "tokens", "--url", busy]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    said = "/flush_cache answered 400: Flush cache failed: running requests; measure on an engine"
    assert line.startswith(busy + said)
