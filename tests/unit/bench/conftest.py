"""`bench` lies beside `src`, and is run from the repository's root; pytest may have been started elsewhere."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3]))
