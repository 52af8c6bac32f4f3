"""Noria: a self-hosted platform for engineering LLM applications behind OpenAI's API."""

__version__ = "0.1.0"
