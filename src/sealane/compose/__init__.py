"""Compose files as a source of intent: text in, typed records or a full list of problems out."""
