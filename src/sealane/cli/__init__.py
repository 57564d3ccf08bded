"""The `sealane` command: parse, one call of the daemon, render."""
