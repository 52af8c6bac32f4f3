"""The web console: a client of Noria's HTTP API in a process of its own (`python -m noria.console --home DIR`).

It uses nothing but the public API, so that whatever it shows or does, a program can too. It never renders what models or
documents say as raw HTML, and it loads nothing from the network.
"""

from noria.console._serve import CONSOLE_FILE, serve

__all__ = ["CONSOLE_FILE", "serve"]
