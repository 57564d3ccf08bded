"""Our rules in a chain that is not ours: iptables' FORWARD, whose policy of DROP would stop what our own tables let pass.

Docker sets that policy where it has switched forwarding on, and other firewalls do. An accept in a table of our own does
not help: a packet passes when every base chain lets it. So at the end of `ip filter FORWARD`, where everything that
somebody has said is said already, stand two rules a link pattern, as iptables-nft itself would write them (so that
`iptables -S` goes on understanding its table), each with its comment by which we know them again.

Only the tables of iptables-nft are seen; those of iptables-legacy are not nftables'.
"""

import errno
from collections.abc import Iterator, Sequence

import msgspec

from sealane.kernel import nft
from sealane.kernel.nft import ACCEPT, IIFNAME, OIFNAME, Cmp, Counter, Rule
from sealane.kernel.objects import PASSAGE_FAMILIES, ForwardRule, PassageFamily
from sealane.linux.marks import alias_prefix
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.codec import nested, string
from sealane.linux.netlink.nft_expr import expressions
from sealane.linux.netlink.socket import NetlinkError, Socket
from sealane.reconcile.plan import Operation, Outcome

TABLE, CHAIN = "filter", "FORWARD"
POLICY_DROP = 0

_SIDES = {"in": IIFNAME, "out": OIFNAME}
_CHAIN_POLICY = 5
_RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 3, 4, 7
_EXPR_NAME, _EXPR_DATA = 1, 2
_MATCH_NAME, _MATCH_INFO = 1, 3
"""NFTA_MATCH_* (linux/netfilter/nf_tables_compat.h)."""
_EMPTY = memoryview(b"")
_GONE = frozenset({errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})


class _Held(msgspec.Struct, frozen=True):
    """A rule of ours: one of the two of a forward rule."""

    link: str
    side: str
    handle: int


def dropping(socket: Socket) -> tuple[PassageFamily, ...]:
    """Families in which iptables' FORWARD has the policy DROP. Raises OSError."""
    return tuple(family for family in PASSAGE_FAMILIES if _policy(socket, family) == POLICY_DROP)


def observe(socket: Socket, instance: str) -> list[ForwardRule]:
    """Forward rules of which something is there. Raises OSError."""
    found: list[ForwardRule] = []
    for family in PASSAGE_FAMILIES:
        sides: dict[str, list[str]] = {}
        overtaken: set[str] = set()
        for rule in _rules(socket, family, instance):
            if rule is None:
                # What somebody has said since is to be heeded: our own go behind it.
                overtaken = set(sides)
            else:
                sides.setdefault(rule.link, []).append(rule.side)
        found += [
            ForwardRule(
                family=family, link=link, is_whole=sorted(there) == ["in", "out"] and link not in overtaken
            )
            for link, there in sides.items()
        ]
    return found


def apply(socket: Socket, operations: Sequence[Operation], instance: str) -> list[Outcome]:
    """One transaction an operation. Where there is no such chain (any more) there is nothing to be let through."""
    outcomes = []
    for operation in operations:
        item = operation.object
        assert isinstance(item, ForwardRule)
        try:
            _set(socket, item, instance, desired=operation.verb != "delete")
        except OSError as error:
            outcomes.append(Outcome(operation, error.errno or errno.EIO, error.strerror or str(error)))
    return outcomes


def is_about(payload: memoryview, kind: int) -> bool:
    """Whether an nf_tables notification concerns the chain, or its table."""
    found = codec.attrs(payload[nfnl.HEADER_BYTES :])
    if 1 not in found or codec.text(found[1]) != TABLE:
        return False
    if kind in {nfnl.NEWRULE, nfnl.DELRULE}:
        return 2 in found and codec.text(found[2]) == CHAIN
    if kind in {nfnl.NEWCHAIN, nfnl.DELCHAIN}:
        return 3 in found and codec.text(found[3]) == CHAIN
    return kind == nfnl.DELTABLE


def _set(socket: Socket, item: ForwardRule, instance: str, *, desired: bool) -> None:
    messages = [
        _delete(item.family, held.handle)
        for held in _rules(socket, item.family, instance)
        if held is not None and held.link == item.link
    ]
    if desired:
        messages += [_append(item, side, instance) for side in _SIDES]
    if not messages:
        return
    for error in socket.batch([nfnl.BEGIN, *messages, nfnl.END]):
        if error is not None and error.errno not in _GONE:
            raise error


def _policy(socket: Socket, family: PassageFamily) -> int | None:
    """None: there is no such chain."""
    desired = string(1, TABLE) + string(3, CHAIN)
    try:
        answers = socket.dump(nfnl.request(nfnl.GETCHAIN, family, desired, codec.NLM_F_ACK))
    except NetlinkError as error:
        if error.errno in _GONE:
            return None
        raise
    for _, payload in answers:
        policy = codec.attrs(payload[nfnl.HEADER_BYTES :]).get(_CHAIN_POLICY)
        return int.from_bytes(policy, "big") if policy is not None else None
    return None


def _rules(socket: Socket, family: PassageFamily, instance: str) -> Iterator[_Held | None]:
    """The chain's rules in their order; None: one of somebody else's."""
    try:
        answers = socket.dump(nfnl.dump(nfnl.GETRULE, family, string(1, TABLE) + string(2, CHAIN)))
    except NetlinkError as error:
        if error.errno in _GONE:
            return
        raise
    for _, payload in answers:
        found = codec.attrs(payload[nfnl.HEADER_BYTES :])
        comment = nfnl.comment_of(found.get(_RULE_USERDATA)) or _restored_comment(
            found.get(_RULE_EXPRESSIONS)
        )
        words = comment.removeprefix(alias_prefix(instance)).split(" ")
        is_ours = len(words) == 3 and words[0] == "forward-rule" and words[2] in _SIDES
        yield _Held(words[1], words[2], nfnl.number(found[_RULE_HANDLE])) if is_ours else None


def _restored_comment(expressions_: memoryview | None) -> str:
    """Of a rule that iptables-restore has made: an xtables match, where ours have it beside their expressions."""
    for _, element in codec.attr_list(expressions_) if expressions_ is not None else ():
        parts = codec.attrs(element)
        if codec.text(parts.get(_EXPR_NAME, _EMPTY)) != "match":
            continue
        match = codec.attrs(parts.get(_EXPR_DATA, _EMPTY))
        if codec.text(match.get(_MATCH_NAME, _EMPTY)) == "comment":
            return bytes(match.get(_MATCH_INFO, _EMPTY)).partition(b"\0")[0].decode(errors="replace")
    return ""


def _append(item: ForwardRule, side: str, instance: str) -> bytes:
    name = item.link
    # A trailing `*` matches any rest: the kernel compares as many bytes as it is given.
    value = name[:-1].encode() if name.endswith("*") else nft.field("ifname", name)
    rule = Rule((Cmp(_SIDES[side], "==", value, f'"{name}"'), Counter(), ACCEPT))
    text = f"{alias_prefix(instance)}forward-rule {name} {side}".encode("ascii") + b"\0"
    body = nested(4, expressions(item.family, rule)) + codec.attr(
        _RULE_USERDATA, bytes((0, len(text))) + text
    )
    attrs = string(1, TABLE) + string(2, CHAIN) + body
    return nfnl.request(nfnl.NEWRULE, item.family, attrs, codec.NLM_F_CREATE | codec.NLM_F_APPEND)


def _delete(family: PassageFamily, handle: int) -> bytes:
    attrs = string(1, TABLE) + string(2, CHAIN) + codec.be64(_RULE_HANDLE, handle)
    return nfnl.request(nfnl.DELRULE, family, attrs)
