"""Turns the loop: collect, curate, train, gate, canary, promote. A durable state machine over the folders below."""
