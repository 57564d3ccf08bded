"""The daemon: where everything is put together, and the one event loop."""
