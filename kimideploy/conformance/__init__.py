"""Conformance: whether an endpoint keeps the reasoning and parses the tool calls."""
