"""A real, tiny engine for the supervisor's tests: standard library only, on a Unix socket or a port.

`/health` answers 503 for `--delay` seconds, then 200, or with `--cannot` that it failed; `/v1/slow?s=1` answers late;
`/v1/pid` names the process; `/v1/grow?mb=N` takes memory; `/v1/spawn` starts a child in a session of its own and names it;
`/v1/env` shows a variable. With `--linger` it takes that many seconds to end when it is told to.
"""

import argparse
import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

BEGUN = time.monotonic()
HELD = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        status, text = 200, "ok"
        if url.path == "/health" and OPTIONS.cannot:
            status, text = 503, json.dumps({"status": "failed", "error": OPTIONS.cannot})
        elif url.path == "/health" and time.monotonic() - BEGUN < OPTIONS.delay:
            status = 503
        elif url.path == "/v1/slow":
            time.sleep(float(query["s"]))
        elif url.path == "/v1/pid":
            text = str(os.getpid())
        elif url.path == "/v1/grow":
            HELD.append(bytearray(os.urandom(1024) * 1024 * int(query["mb"])))
        elif url.path == "/v1/spawn":
            text = str(subprocess.Popen(["sleep", "300"], start_new_session=True).pid)
        elif url.path == "/v1/env":
            text = os.environ.get(query["name"], "")
        body = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "client"

    def log_message(self, format, *args):
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class PortServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


parser = argparse.ArgumentParser()
parser.add_argument("--uds")
parser.add_argument("--port", type=int)
parser.add_argument("--delay", type=float, default=0.0)
parser.add_argument("--cannot", help="stay, and answer /health with this as the reason why not")
parser.add_argument("--fail", help="print this and exit 3")
parser.add_argument("--fail-if", help="fail while this file exists")
parser.add_argument("--linger", type=float, default=0.0)
OPTIONS = parser.parse_args()
if OPTIONS.fail and (not OPTIONS.fail_if or Path(OPTIONS.fail_if).exists()):
    sys.exit(f"{OPTIONS.fail}")
server = UnixServer(OPTIONS.uds, Handler) if OPTIONS.uds else PortServer(("127.0.0.1", OPTIONS.port), Handler)
if OPTIONS.linger:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(OPTIONS.linger), os._exit(0)))
print("listening", flush=True)
server.serve_forever()
