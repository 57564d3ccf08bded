"""The bytecode of what tests start: daemons and command lines by the hundred, each of which would compile all that it
imports. (A crash sweep takes 27 s with it, 88 s without.)

Made at the start of a session, whatever it was started by, since the environment may forbid Python to keep any
(PYTHONDONTWRITEBYTECODE, as in many container images) and the harness forbids it to daemons, whose system calls are
counted. What is up to date costs a look at each file.
"""

import compileall
import os

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = (os.path.join(os.path.dirname(os.path.dirname(HERE)), "src"), HERE)


def compile_sources() -> None:
    """Where it cannot be written, tests are slower and nothing else."""
    for folder in SOURCES:
        compileall.compile_dir(folder, quiet=2)
