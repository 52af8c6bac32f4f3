"""HTTP routes: parses, calls, answers; no domain logic. Start it with `python -m noria.server`."""
