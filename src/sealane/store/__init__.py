"""Adapter: where intent is kept."""
