"""How a process with an empty memory knows what is ours, for every kind of object.

| kind | ours is |
|---|---|
| link | IFLA_IFALIAS begins with `sealane/INSTANCE/`; `lo` inside a sandbox, of which only `up` is set, never deleted |
| address | on a link of ours; in a sandbox only the ones we put there: its owner may add more (the guards decide) |
| route | protocol 94 (`RTPROT_SEALANE`) |
| routing rule | protocol 94 |
| neighbour | permanent or proxy, on a link of ours; in a sandbox only the ones we put there |
| FDB entry | static, at a port of ours; permanent, at a bridge of ours, but for the one that the kernel gives every bridge |
| nftables | everything in the tables named `sealane` |
| sysctl | the paths that desired state names: set, never deleted; those of the host's own that we have changed (`linux/borrowed.py`): put back |
| forward rule | a rule in iptables' FORWARD whose comment begins with `sealane/INSTANCE/forward rule` |
| fast port | the tc filter of our preference and name at the entrance of a link of ours |
| fast target, fast gate | the elements of our pinned maps |
| host-loopback publish | the entries of our pinned map |

What is not ours is not in observed state at all, so no difference can ever name it: that is the whole mechanism by
which foreign objects are never touched.
"""

from sealane.kernel.links import Loopback
from sealane.kernel.nft import Chain, ObservedChain
from sealane.kernel.objects import Link, Sysctl
from sealane.kernel.state import Object


def is_deletable(item: Object) -> bool:
    """Whether the object goes when nothing desires it."""
    if isinstance(item, Sysctl):
        return item.borrowed
    return not (isinstance(item, Link) and isinstance(item.kind, Loopback))


def is_same(desired: Object, observed: Object) -> bool:
    """Whether an observed object is what is desired.

    Chains are compared by their rules' tags. A link's kind is compared without the fields that are not read back
    (`kernel.links`), all other fields of a link as they are.
    """
    if isinstance(desired, Chain):
        if isinstance(observed, ObservedChain):
            return desired.tags == observed.tags and desired.hook == observed.hook
        return desired == observed
    if isinstance(desired, Link) and isinstance(observed, Link):
        return desired == observed or _identity(desired) == _identity(observed)
    return desired == observed


def _identity(link: Link) -> tuple[object, ...]:
    if isinstance(link.kind, Loopback):
        return (link.name, link.kind, link.up)
    return (link.kind.as_read, *(getattr(link, field) for field in _COMPARED))


_COMPARED = tuple(field for field in Link.__struct_fields__ if field != "kind")
