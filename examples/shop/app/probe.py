"""Exit 0 if something listens: `probe.py HOST:PORT`, or a line of verdicts for several."""

import socket
import sys


def is_open(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=0.7).close()
    except OSError:
        return False
    return True


results = [is_open(target) for target in sys.argv[1:]]
print(" ".join("yes" if result else "no" for result in results))
sys.exit(0 if all(results) else 1)
