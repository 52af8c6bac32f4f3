"""Runs code that must not touch the host, under bubblewrap: no network, no host files, limits on memory, time and processes."""
