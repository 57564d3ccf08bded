"""What the demos stand on: a screen, a daemon of their own, a visitor from outside. It uses sealane as anybody would,
through its command line, and imports nothing of it."""
