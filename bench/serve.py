"""The daemon with everything in the default places but its state: `python -m bench.serve STATE_DIR`."""

import sys

from sealane.daemon.config import Config
from sealane.daemon.main import run

if __name__ == "__main__":
    sys.exit(run(Config(state_dir=sys.argv[1], log_level="warning")))
