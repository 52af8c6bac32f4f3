"""The training process: prepares files, trains, scores. Talks to the server by lines of JSON; everything else goes to stderr."""

__all__: list[str] = []
