"""Links from flat fields, for tests that vary or parse them one by one."""

import msgspec

from sealane.kernel.links import Bridge, Loopback, Macvlan, Veth
from sealane.kernel.objects import Link

KINDS = {"bridge": Bridge, "veth": Veth, "loopback": Loopback, "macvlan": Macvlan}


def flat(*, kind: str, **fields) -> Link:
    """`kind` by its word; fields of the kind and of the link stand side by side."""
    of_kind = KINDS[kind]
    own = {name: fields.pop(name) for name in of_kind.__struct_fields__ if name in fields}
    return Link(kind=of_kind(**own), **fields)


def changed(link: Link, **fields) -> Link:
    """`msgspec.structs.replace` for fields of the link and of its kind."""
    kind = fields.pop("kind", link.kind)
    own = {name: fields.pop(name) for name in kind.__struct_fields__ if name in fields}
    return msgspec.structs.replace(link, kind=msgspec.structs.replace(kind, **own), **fields)
