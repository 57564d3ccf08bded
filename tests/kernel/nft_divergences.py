"""Where `nft list` (1.0.6) says something else than our text for the same rule, each with the reason.

Everything else is equal letter by letter: `tests/kernel/test_nft.py`.
"""

import re

DIVERGENCES = [
    (
        r"meta l4proto (tcp|udp|sctp) th (sport|dport)",
        r"\1 \2",
        "a match on the protocol is left out when a match on its header follows",
    ),
    (r"meta l4proto ipv6-icmp icmpv6 type", "icmpv6 type", "likewise"),
    (r"ether type arp (?=arp |@nh)", "", "likewise: `arp` implies the type of the frame"),
    (r"ether type ip6 (?=ip6 |icmpv6 )", "", "likewise"),
    (r"ether type ip (?=ip )", "", "likewise"),
    (
        r"@nh,0,48 != 0x000108000604",
        "arp htype != 1 arp ptype != ip arp hlen != 6 arp plen != 4",
        "MIS-PRINTED: one comparison of six bytes is taken apart into four that must all fail",
    ),
    (
        r"@nh,0,48 0x000108000604",
        "arp htype 1 arp ptype ip arp hlen 6 arp plen 4",
        "a load of several fields is taken apart",
    ),
    (
        r"(ip [sd]addr (?:!= )?\S+)/32\b|(ip6 [sd]addr (?:!= )?\S+)/128\b",
        r"\1\2",
        "a prefix of one address is said as the address: whether a rule compares the one or the other is not to be seen",
    ),
]


def as_listed(text: str) -> str:
    for pattern, replacement, _ in DIVERGENCES:
        text = re.sub(pattern, replacement, text)
    return text
