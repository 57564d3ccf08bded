"""struct tcp_info (linux/tcp.h): how a TCP connection fares. It has grown at its end with nearly every kernel, so what
lies beyond the answer's length was not known then."""

import struct

from sealane.wire.diagnosis import TcpView

_RETRANSMITS_END = 104
"""Up to tcpi_total_retrans: what every kernel since 2.6 has."""

_U32 = struct.Struct("=I")
_SND_MSS = 16
_UNACKED = 24
_RTT = 68
_RTTVAR = 72
_SND_CWND = 80
_TOTAL_RETRANS = 100
_SND_WND = 228
"""Linux 5.4."""

_US_PER_MS = 1000


def parse(payload: memoryview) -> TcpView | None:
    """None for what is too short to be one."""
    if len(payload) < _RETRANSMITS_END:
        return None

    def at(offset: int) -> int:
        value: int = _U32.unpack_from(payload, offset)[0]
        return value

    return TcpView(
        rtt_ms=at(_RTT) / _US_PER_MS,
        rttvar_ms=at(_RTTVAR) / _US_PER_MS,
        retransmits=at(_TOTAL_RETRANS),
        cwnd=at(_SND_CWND),
        mss=at(_SND_MSS),
        unacked=at(_UNACKED),
        send_window=at(_SND_WND) if len(payload) >= _SND_WND + _U32.size else None,
    )
