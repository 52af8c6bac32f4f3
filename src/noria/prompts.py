"""The vocabulary of prompt templates: blocks, variables, rendering. Standard library and pydantic only."""
