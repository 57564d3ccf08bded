"""Bounds of the engine and the API, each with a test at bound + 1 (tests/unit/test_limits.py). Adapters keep theirs at
the head of their modules."""

EVENTS_KEPT = 1024
"""Events that `sealane events --since` can still show; older ones are gone."""

EVENT_CHARS_MAX = 1024
"""Of an event's subject and of each of its details: whoever is refused may have written what they quote."""

FEED_CHANGES_KEPT = 16_384
"""Changes in the change feed; a reader that is further behind reads the whole intent."""

COMMIT_TRIES = 5
"""Commits tried while another writer keeps changing the store."""

RANGE_PORTS_MAX = 4096
"""Host ports of one publish whose range is shifted (host 8000-8099 to container 9000-9099): an element a port."""

PUBLISHES_PER_ENDPOINT = 256

ALIASES_PER_ENDPOINT = 64

SUBNETS_PER_NETWORK = 2
"""One a family."""

EPHEMERAL_TRIES = 4096
"""Candidates looked at for an ephemeral port before giving up."""

RECONCILE_ROUNDS = 5
"""Rounds of observe, plan and apply in one resync before what is left is reported and left to the next."""

REPAIR_BURST = 20
"""Repairs in a row at full speed; a fight over an object is then slowed to one every REPAIR_PAUSE_S."""

REPAIR_PAUSE_S = 5.0

REQUEST_BYTES_MAX = 1 << 20
"""Of one HTTP request's body."""

CONNECTIONS_MAX = 256
"""API connections at once."""

WORKERS_MAX = 16
"""Blocking calls of the daemon's at once: launches of containers, images, reading files."""

WAITERS_MAX = 256
"""Of those that mostly wait: stops and removals of containers."""

SYSCTL_POLL_S = 5.0
"""There is no notification for sysctls."""

FULL_LOOK_S = 60.0
"""Between full comparisons of the host with what it should be: for whatever no notification told of."""
