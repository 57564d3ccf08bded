"""Exit 0 if everything listens: `probe.py HOST:PORT…` prints a verdict for each. All are tried at once."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor


def is_open(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=0.8).close()
    except OSError:
        return False
    return True


with ThreadPoolExecutor(16) as pool:
    results = list(pool.map(is_open, sys.argv[1:]))
print(" ".join("yes" if result else "no" for result in results))
sys.exit(0 if all(results) else 1)
