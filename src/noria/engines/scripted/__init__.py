"""A model that says what a script tells it to: for tests of applications, for benchmarks, and without any weights.

`python -m noria.engines.scripted --name NAME (--uds PATH | --port N) [--script FILE]` speaks chat completions, completions
and embeddings like any engine. The script is TOML:

    delay_s = 0.02          # before the first byte
    chunk_delay_s = 0.0     # between streamed words
    dimensions = 64         # of the embeddings: words hashed, so that like texts are near

    [[replies]]
    match = "weather"       # a regular expression looked for in the last user message; first that fits
    text = "It rains."
    # or: tool = "get_weather", arguments = '{"city": "Paris"}'
    # or: error = 503

Without a script it repeats the last user message. In the catalogue it is `engine = "scripted"`.
"""
