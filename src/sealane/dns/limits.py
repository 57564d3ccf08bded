"""Every bound of the resolver, in one place; each has a test at the bound and one past it."""

LOCAL_TTL_S = 5
"""Of names we own. Short, for a container that returns with another address must not be looked for at the old one."""

UDP_ANSWER_BYTES = 1232
"""The longest datagram we send or ask for: fits any path without fragments (DNS flag day 2020)."""

PROMPT = 8
"""Uncached questions of one asker that are answered out of a burst; his others wait until everybody's have been read."""

BACKLOG = 4096
"""Questions of one socket that wait, half of them one asker's if he is alone. What is beyond is dropped."""

TURNS = 8
"""Waiting questions that are answered (30 µs each) before what has come meanwhile is read."""

QUERY_BYTES = 2048
"""The longest query that is read. A name is at most 255 octets; the rest is room for EDNS options."""

BURST = 64
"""Datagrams taken from one socket before the next one has its turn (well under 1 ms)."""

SOCKET_BUFFER_BYTES = 2 << 20
"""Asked of the kernel for each UDP socket; it takes twice that, room for 5,400 small questions with their overhead: what
a flood of 50,000 a second brings in the 100 ms for which a busy machine may not let us run."""

LISTENERS = 8192
"""Addresses listened on; each costs two descriptors. What is beyond is reported, not served."""

ASKERS = 8192
"""Askers remembered for each listener; beyond, all are forgotten and recognised again (4 µs each)."""

VIEW_CACHE_ENTRIES = 4096
"""Raw questions remembered for one view."""

CACHE_BYTES = 32 << 20
"""What the raw caches of all views may hold together; beyond, all are emptied and fill again."""

ROTATIONS = 16
"""Orders of one name's addresses that are handed out in turn."""

ANSWER_RECORDS = 1024
"""Records in one answer over TCP."""

STREAM_CLIENTS = 256
"""TCP connections at once."""

STREAM_CLIENTS_EACH = 16
"""TCP connections of one asker at once."""

STREAM_TIMEOUT_S = 2.0
"""For a whole query to arrive on a connection, and for a whole answer to be taken."""

STREAM_QUERIES = 1000
"""Queries on one connection before we close it."""

FORWARDS = 768
"""Forwarded questions unanswered at once."""

FORWARD_SHARE = 2
"""One asker may hold as many as half of what is still free: at most 256 (see ``fairness``)."""

FORWARD_SOCKETS = 1024
"""Sockets towards upstreams at once: one a question, and one more for each upstream it is hedged to."""

UPSTREAMS = 3
"""Servers used of those configured, as glibc's MAXNS."""

FORWARD_DEADLINE_S = 4.0
"""Below the 5 s after which glibc and musl ask again."""

HEDGE_S = 0.3
"""Without an answer for so long, the next upstream is asked as well."""

RESEND_S = 1.0
"""Without an answer for so long, a lone upstream is asked for the second and last time."""

UPSTREAM_DEMOTED_S = 10.0
"""For so long an upstream that did not answer is asked last."""

REPLY_BYTES = 16384
"""The longest upstream reply (over TCP) that is read."""

REPLY_RECORDS = 512
"""Records in an upstream reply."""

REPLY_CACHE_ENTRIES = 4096
"""Upstream replies remembered."""

REPLY_CACHE_S = 30
"""An upstream reply is remembered for its least TTL, and no longer than this."""

RESOLV_CONF_BYTES = 65536
"""Read of /etc/resolv.conf."""

TICK_S = 1.0
"""How often failed sockets are tried again, vanished bridges noticed and /etc/resolv.conf looked at."""

SWITCH_INTERVAL_S = 0.0005
"""The longest that another thread of the daemon keeps the serving thread from the interpreter (sys.setswitchinterval)."""
