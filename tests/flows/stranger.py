"""Something else that takes the engine's port, as soon as a file appears."""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Routes(BaseHTTPRequestHandler):
    """Healthy, and serving a model of the name that is asked for."""

    def log_message(self, *_: object) -> None:
        """Say nothing about requests."""

    def do_GET(self) -> None:
        """Answer everything with the list of models."""
        data = json.dumps({"data": [{"id": sys.argv[3]}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


while not Path(sys.argv[1]).exists():
    time.sleep(0.02)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Routes).serve_forever()
