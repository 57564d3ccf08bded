"""The eight programs that redirect connections to the host's loopback, as pure functions to instructions.

::

    client on the host                 map `targets`, longest prefix        container
    connect 127.0.0.1:8080  ──hook──►  (4, tcp, 8080) → 10.0.0.2, delta ──► 10.0.0.2:80
                                       map `peers`, least recently used
    getpeername, recvmsg    ◄──hook──  (socket, 10.0.0.2:80) → 127.0.0.1:8080

Hooks `connect4/6` and, for datagrams that bring their destination along, `sendmsg4/6` rewrite the destination before the
kernel chooses route and source address; so no packet with a 127/8 address ever leaves, no route_localnet is needed, no
conntrack entry is made, and the server sees the host's real address. `recvmsg4/6` and `getpeername4/6` put back the
address that the application had asked for.

Rule 1: a program does nothing unless the socket's network namespace is the one it was assembled for. A container's own
loopback never passes this.

Rule 2: a destination counts as loopback if the kernel would deliver it there: 127.0.0.0/8, ::1, ::ffff:127.0.0.0/104,
and the unspecified address, which the kernel itself takes for loopback.

Rule 3: a socket that has bound itself to a loopback address is left alone. It could not send to any other address
(EINVAL from ``__mkroute_output``), and its answers could not come back.

Rule 4: a socket of the host that listens on exactly the address and port asked for keeps its clients, as it keeps them
from a wildcard listener. A name server published on port 53 so leaves systemd-resolved its 127.0.0.53. What does not count
is a listener on the wildcard address, and one at the address at which the publish is reserved: podman's monitor listens
there only so that no other program does, and never accepts.

Rule 5: the programs never deny; whatever they do not handle goes on as if they were not there.

IPv4 addresses are handled in their mapped form, because an IPv6 socket may speak IPv4: the kernel then calls `connect6`
with the mapped address for TCP, `sendmsg4` for a datagram sent, and `recvmsg6` for the one received.

Context offsets: ``struct bpf_sock_addr`` and ``struct bpf_sock`` of ``linux/bpf.h``. A context is read and written in
words, which the verifier allows for every field; single bytes are read where only the first octet matters.
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from sealane.linux.bpf.entry import EXACT_PREFIX_BITS, KEY_BYTES, VALUE_BYTES, Family
from sealane.linux.bpf.insn import Assembler, Helper, Reg, Size
from sealane.linux.bpf.syscall import MAP_NO_PREALLOC, MapSpec, MapType

MAX_TARGETS: Final = 65_536
"""Elements, not ports: a range takes few. The trie takes memory for what it holds only."""

MAX_PEERS: Final = 16_384
"""Sockets whose original destination is remembered (1.8 MB, taken at once); beyond it the least recently used is lost,
and its application sees the backend's address."""

PEER_KEY_BYTES: Final = 28
PEER_VALUE_BYTES: Final = 20

TARGETS: Final = MapSpec("sl_targets", MapType.LPM_TRIE, KEY_BYTES, VALUE_BYTES, MAX_TARGETS, MAP_NO_PREALLOC)
PEERS: Final = MapSpec("sl_peers", MapType.LRU_HASH, PEER_KEY_BYTES, PEER_VALUE_BYTES, MAX_PEERS)


class Hook(msgspec.Struct, frozen=True):
    """One point where the kernel runs a program. `attach_type` is of ``enum bpf_attach_type``."""

    name: str
    attach_type: int
    family: Family
    datagram: bool = False
    """The program sees one datagram and not the socket's own peer."""
    reverse: bool = False
    """The program tells the application an address, and does not take one from it."""


HOOKS: Final = (
    # What gives an answer its address back comes first: no datagram is redirected before its answer can be turned back.
    Hook("recvmsg4", 19, 4, datagram=True, reverse=True),
    Hook("recvmsg6", 20, 6, datagram=True, reverse=True),
    Hook("getpeername4", 29, 4, reverse=True),
    Hook("getpeername6", 30, 6, reverse=True),
    Hook("sendmsg4", 14, 4, datagram=True),
    Hook("sendmsg6", 15, 6, datagram=True),
    Hook("connect4", 10, 4),
    Hook("connect6", 11, 6),
)

# struct bpf_sock_addr
_USER_IP4: Final = 4
_USER_IP6: Final = 8
_USER_PORT: Final = 24
_PROTOCOL: Final = 36
_MSG_SRC_IP4: Final = 40
_MSG_SRC_IP6: Final = 44
_SOCK: Final = 64
# struct bpf_sock
_SOCK_SRC_IP4: Final = 24
_SOCK_SRC_IP6: Final = 28

# The frame, downwards from R10. Map keys and values are whole words, eight-byte aligned where they begin.
_TARGET_KEY: Final = -8
_PEER_KEY: Final = -40
_PEER_KEY_ADDRESS: Final = _PEER_KEY + 8
_PEER_KEY_PORT: Final = _PEER_KEY + 24
_PEER_VALUE: Final = -64
_TUPLE: Final = -104
# struct of a target: address, delta; of a peer: address, port
_TARGET_DELTA: Final = 16
_TARGET_RESERVED: Final = 24
_PEER_PORT: Final = 16

# struct bpf_sock_tuple: the source's address, the destination's, and both ports; IPv4 or IPv6 by its size.
_TUPLE_BYTES: Final[dict[Family, int]] = {4: 12, 6: 36}
_CURRENT_NETNS: Final = -1
_UDP: Final = 17

_FIRST_OCTET_LOOPBACK: Final = 127
_CONTEXT: Final = Reg.R6
_LAST_WORD: Final = Reg.R7
_PORT: Final = Reg.R8
_TARGET: Final = Reg.R9


def _network_word(octets: bytes) -> int:
    return int.from_bytes(octets, sys.byteorder)


_LOCALHOST4: Final = _network_word(b"\x7f\0\0\1")
_MAPPED_WORD: Final = _network_word(b"\0\0\xff\xff")
_ONE: Final = _network_word(b"\0\0\0\1")


def build(hook: Hook, netns_cookie: int) -> Assembler:
    """The program for `hook`, which acts for sockets of the namespace with this cookie (``SO_NETNS_COOKIE``)."""
    asm = Assembler()
    asm.move(_CONTEXT, Reg.R1)
    asm.call(Helper.GET_NETNS_COOKIE)
    asm.load_u64(Reg.R1, netns_cookie)
    asm.jump_if(Reg.R0, "!=", Reg.R1, "pass")
    if hook.reverse:
        _restore(asm, hook)
    else:
        _redirect(asm, hook)
    asm.label("pass")
    asm.move(Reg.R0, 1)
    asm.exit()
    return asm


def _redirect(asm: Assembler, hook: Hook) -> None:
    if hook.family == 4:
        _take_destination4(asm)
        _pass_if_bound4(asm, hook)
    else:
        _take_destination6(asm)
        _pass_if_bound6(asm, hook)
    _find_target(asm)
    if hook.family == 6 and hook.datagram:
        _pass_if_target_is_mapped(asm)
    _pass_if_host_listens(asm)
    _remember_peer(asm)
    _write_address(asm, hook, _TARGET)
    asm.load(Size.WORD, Reg.R1, Reg.R10, _PEER_KEY_PORT)
    asm.store(Size.WORD, _CONTEXT, _USER_PORT, Reg.R1)


def _restore(asm: Assembler, hook: Hook) -> None:
    if hook.family == 4:
        _store_words(asm, _PEER_KEY_ADDRESS, 0, 0, _MAPPED_WORD)
        asm.load(Size.WORD, Reg.R1, _CONTEXT, _USER_IP4)
        asm.store(Size.WORD, Reg.R10, _PEER_KEY_ADDRESS + 12, Reg.R1)
    else:
        _copy_words(asm, Reg.R10, _PEER_KEY_ADDRESS, _CONTEXT, _USER_IP6, 4)
    asm.load(Size.WORD, Reg.R1, _CONTEXT, _USER_PORT)
    asm.store(Size.WORD, Reg.R10, _PEER_KEY_PORT, Reg.R1)
    _find_peer(asm)
    asm.jump_if(Reg.R0, "==", 0, "pass")
    _write_address(asm, hook, Reg.R0)
    asm.load(Size.WORD, Reg.R1, Reg.R0, _PEER_PORT)
    asm.store(Size.WORD, _CONTEXT, _USER_PORT, Reg.R1)


def _take_destination4(asm: Assembler) -> None:
    """Note the destination as the peer to tell later, and the family in the target's key; pass unless loopback."""
    asm.load(Size.WORD, _LAST_WORD, _CONTEXT, _USER_IP4)
    asm.jump_if_word(_LAST_WORD, "!=", 0, "specified")
    asm.move(_LAST_WORD, _LOCALHOST4)
    asm.jump("loopback")
    asm.label("specified")
    asm.load(Size.BYTE, Reg.R1, _CONTEXT, _USER_IP4)
    asm.jump_if(Reg.R1, "!=", _FIRST_OCTET_LOOPBACK, "pass")
    asm.label("loopback")
    _store_words(asm, _PEER_VALUE, 0, 0, _MAPPED_WORD)
    asm.store(Size.WORD, Reg.R10, _PEER_VALUE + 12, _LAST_WORD)
    asm.store_imm(Size.BYTE, Reg.R10, _TARGET_KEY + 4, 4)


def _take_destination6(asm: Assembler) -> None:
    """As `_take_destination4`; a mapped destination is looked up as IPv4."""
    asm.load(Size.WORD, _LAST_WORD, _CONTEXT, _USER_IP6 + 12)
    _branch_on_address6(asm, _CONTEXT, _USER_IP6, mapped="mapped", native="native", other="pass")
    asm.label("mapped")
    asm.load(Size.BYTE, Reg.R1, _CONTEXT, _USER_IP6 + 12)
    asm.jump_if(Reg.R1, "!=", _FIRST_OCTET_LOOPBACK, "pass")
    _store_words(asm, _PEER_VALUE, 0, 0, _MAPPED_WORD)
    asm.store_imm(Size.BYTE, Reg.R10, _TARGET_KEY + 4, 4)
    asm.jump("loopback")
    asm.label("native")
    asm.jump_if_word(_LAST_WORD, "==", _ONE, "one")
    asm.jump_if_word(_LAST_WORD, "!=", 0, "pass")
    asm.move(_LAST_WORD, _ONE)
    asm.label("one")
    _store_words(asm, _PEER_VALUE, 0, 0, 0)
    asm.store_imm(Size.BYTE, Reg.R10, _TARGET_KEY + 4, 6)
    asm.label("loopback")
    asm.store(Size.WORD, Reg.R10, _PEER_VALUE + 12, _LAST_WORD)


def _pass_if_bound4(asm: Assembler, hook: Hook) -> None:
    # A datagram's source may also come from IP_PKTINFO; the kernel has merged both into msg_src_ip4.
    if hook.datagram:
        asm.load(Size.BYTE, Reg.R1, _CONTEXT, _MSG_SRC_IP4)
    else:
        asm.load(Size.LONG, Reg.R3, _CONTEXT, _SOCK)
        asm.load(Size.BYTE, Reg.R1, Reg.R3, _SOCK_SRC_IP4)
    asm.jump_if(Reg.R1, "==", _FIRST_OCTET_LOOPBACK, "pass")


def _pass_if_bound6(asm: Assembler, hook: Hook) -> None:
    base, offset = (_CONTEXT, _MSG_SRC_IP6)
    if not hook.datagram:
        base, offset = (Reg.R3, _SOCK_SRC_IP6)
        asm.load(Size.LONG, Reg.R3, _CONTEXT, _SOCK)
    _branch_on_address6(asm, base, offset, mapped="bound_mapped", native="bound_native", other="not_bound")
    asm.label("bound_mapped")
    asm.load(Size.BYTE, Reg.R1, base, offset + 12)
    asm.jump_if(Reg.R1, "==", _FIRST_OCTET_LOOPBACK, "pass")
    asm.jump("not_bound")
    asm.label("bound_native")
    asm.load(Size.WORD, Reg.R1, base, offset + 12)
    asm.jump_if_word(Reg.R1, "==", _ONE, "pass")
    asm.label("not_bound")


def _branch_on_address6(
    asm: Assembler, base: Reg, offset: int, *, mapped: str, native: str, other: str
) -> None:
    """Go to `mapped` for ::ffff:0:0/96, to `native` for ::/96 (which holds :: and ::1), else to `other`."""
    asm.load(Size.WORD, Reg.R1, base, offset)
    asm.load(Size.WORD, Reg.R2, base, offset + 4)
    asm.bit_or(Reg.R1, Reg.R2)
    asm.jump_if(Reg.R1, "!=", 0, other)
    asm.load(Size.WORD, Reg.R1, base, offset + 8)
    asm.jump_if_word(Reg.R1, "==", 0, native)
    asm.jump_if_word(Reg.R1, "==", _MAPPED_WORD, mapped)
    asm.jump(other)


def _find_target(asm: Assembler) -> None:
    """Complete the target's key and look it up: the value in R9, the port asked for in R8."""
    asm.store_imm(Size.WORD, Reg.R10, _TARGET_KEY, EXACT_PREFIX_BITS)
    # One byte of the protocol's number: IPPROTO_MPTCP is 262, TCP's 6 with bit 8 set, and a Multipath TCP connection
    # is published with TCP.
    asm.load(Size.WORD, Reg.R1, _CONTEXT, _PROTOCOL)
    asm.store(Size.BYTE, Reg.R10, _TARGET_KEY + 5, Reg.R1)
    asm.load(Size.WORD, _PORT, _CONTEXT, _USER_PORT)
    asm.store(Size.HALF, Reg.R10, _TARGET_KEY + 6, _PORT)
    _call_with_key(asm, Helper.MAP_LOOKUP_ELEM, TARGETS.name, _TARGET_KEY)
    asm.jump_if(Reg.R0, "==", 0, "pass")
    asm.move(_TARGET, Reg.R0)


def _pass_if_target_is_mapped(asm: Assembler) -> None:
    # udpv6_sendmsg answers ENOTSUPP (524) if the program of sendmsg6 leaves a mapped address.
    _branch_on_address6(asm, _TARGET, 0, mapped="pass", native="reachable", other="reachable")
    asm.label("reachable")


def _pass_if_host_listens(asm: Assembler) -> None:
    """Rule 4, by the kernel's own search for a listener."""
    # Zero, where nothing is reserved or at every address, is no destination that comes here.
    asm.load(Size.WORD, Reg.R1, _TARGET, _TARGET_RESERVED)
    asm.jump_if_word(Reg.R1, "==", _LAST_WORD, "not_listening")
    asm.load(Size.BYTE, Reg.R1, Reg.R10, _TARGET_KEY + 4)
    asm.jump_if(Reg.R1, "==", 6, "search6")
    _pass_if_listener(asm, 4)
    asm.jump("not_listening")
    asm.label("search6")
    _pass_if_listener(asm, 6)
    asm.label("not_listening")


def _pass_if_listener(asm: Assembler, family: Family) -> None:
    size = _TUPLE_BYTES[family]
    _store_words(asm, _TUPLE, *[0] * (size // 4))
    # Of both addresses only the destination's last word is not zero: 127.x.y.z or ::1.
    asm.store(Size.WORD, Reg.R10, _TUPLE + size - 8, _LAST_WORD)
    asm.store(Size.HALF, Reg.R10, _TUPLE + size - 2, _PORT)
    asm.load(Size.WORD, Reg.R0, _CONTEXT, _PROTOCOL)
    asm.move(Reg.R1, _CONTEXT)
    asm.move(Reg.R2, Reg.R10)
    asm.add(Reg.R2, _TUPLE)
    asm.move(Reg.R3, size)
    asm.move(Reg.R4, _CURRENT_NETNS)
    asm.move(Reg.R5, 0)
    asm.jump_if(Reg.R0, "==", _UDP, f"udp{family}")
    asm.call(Helper.SK_LOOKUP_TCP)
    asm.jump(f"searched{family}")
    asm.label(f"udp{family}")
    asm.call(Helper.SK_LOOKUP_UDP)
    asm.label(f"searched{family}")
    asm.jump_if(Reg.R0, "==", 0, "not_listening")
    # What was found listens on the address asked for or on the wildcard, whose last word is zero.
    asm.load(Size.WORD, Reg.R1, Reg.R0, _SOCK_SRC_IP4 if family == 4 else _SOCK_SRC_IP6 + 12)
    asm.store(Size.WORD, Reg.R10, _TUPLE, Reg.R1)
    asm.move(Reg.R1, Reg.R0)
    asm.call(Helper.SK_RELEASE)
    asm.load(Size.WORD, Reg.R1, Reg.R10, _TUPLE)
    asm.jump_if_word(Reg.R1, "!=", 0, "pass")


def _remember_peer(asm: Assembler) -> None:
    """Store (socket, backend) → what was asked for; the backend's port stays at `_PEER_KEY_PORT`."""
    _copy_words(asm, Reg.R10, _PEER_KEY_ADDRESS, _TARGET, 0, 4)
    asm.store(Size.WORD, Reg.R10, _PEER_VALUE + _PEER_PORT, _PORT)
    asm.big_endian16(_PORT)
    asm.load(Size.HALF, Reg.R1, _TARGET, _TARGET_DELTA)
    asm.add(_PORT, Reg.R1)
    asm.big_endian16(_PORT)
    asm.store(Size.WORD, Reg.R10, _PEER_KEY_PORT, _PORT)
    _find_peer(asm)
    asm.jump_if(Reg.R0, "==", 0, "new_peer")
    # A socket that sends datagram after datagram overwrites its element; an update would allocate each time.
    _copy_words(asm, Reg.R0, 0, Reg.R10, _PEER_VALUE, PEER_VALUE_BYTES // 4)
    asm.jump("remembered")
    asm.label("new_peer")
    asm.move(Reg.R3, Reg.R10)
    asm.add(Reg.R3, _PEER_VALUE)
    asm.move(Reg.R4, 0)
    _call_with_key(asm, Helper.MAP_UPDATE_ELEM, PEERS.name, _PEER_KEY)
    asm.label("remembered")


def _find_peer(asm: Assembler) -> None:
    asm.move(Reg.R1, _CONTEXT)
    asm.call(Helper.GET_SOCKET_COOKIE)
    asm.store(Size.LONG, Reg.R10, _PEER_KEY, Reg.R0)
    _call_with_key(asm, Helper.MAP_LOOKUP_ELEM, PEERS.name, _PEER_KEY)


def _write_address(asm: Assembler, hook: Hook, base: Reg) -> None:
    """Put the sixteen bytes at `base` into the context, or their last four for IPv4."""
    if hook.family == 4:
        _copy_words(asm, _CONTEXT, _USER_IP4, base, 12, 1)
    else:
        _copy_words(asm, _CONTEXT, _USER_IP6, base, 0, 4)


def _call_with_key(asm: Assembler, helper: Helper, map_name: str, key: int) -> None:
    asm.load_map(Reg.R1, map_name)
    asm.move(Reg.R2, Reg.R10)
    asm.add(Reg.R2, key)
    asm.call(helper)


def _copy_words(asm: Assembler, dst: Reg, dst_offset: int, src: Reg, src_offset: int, count: int) -> None:
    for offset in range(0, 4 * count, 4):
        asm.load(Size.WORD, Reg.R1, src, src_offset + offset)
        asm.store(Size.WORD, dst, dst_offset + offset, Reg.R1)


def _store_words(asm: Assembler, offset: int, *words: int) -> None:
    for index, word in enumerate(words):
        asm.store_imm(Size.WORD, Reg.R10, offset + 4 * index, word)
