"""`python -m noria.console`: what `noria up` starts beside the server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

from noria.console._connection import Connection
from noria.console._serve import serve
from noria.errors import NoriaError
from noria.settings import load


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m noria.console", description=__doc__)
    parser.add_argument("--home", help="the instance's folder; its run/server.json tells where the API is")
    parser.add_argument("--host", default="127.0.0.1", help="beyond loopback, everyone signs in with an API key")
    parser.add_argument("--port", type=int, help="0: any free one; default: console_port, else the API's port + 1")
    parser.add_argument("--api-url", help="the API's address, if it is not the one of --home")
    options = parser.parse_args()
    try:
        settings = load({"home": options.home}).settings
        port: int = options.port if options.port is not None else settings.console_port or settings.port + 1
        connection = Connection(settings.run_dir, options.api_url)
        with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
            asyncio.run(serve(settings.home, connection, options.host, port))
    except NoriaError as error:
        print(f"noria: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
