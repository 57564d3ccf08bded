"""Exit codes that are not a process's own, as Docker and shells have them. Standard library only."""

FAILED = 125
"""It never ran, for a reason that is not its own."""

NOT_EXECUTABLE = 126
NOT_FOUND = 127
KILLED = 128 + 9
