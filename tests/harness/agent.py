"""A process that lives in one namespace and does there what a test tells it to. Standard library only.

It reads one JSON document a line from standard input, `{"op": NAME, ...}`, and answers each with one line:
`{"result": ...}` or `{"error": TEXT}`. It ends when standard input does, so nothing outlives the test process.
Sockets that it opens live in its namespace; one probe costs about a millisecond, a process in the namespace twenty.
"""

import contextlib
import errno
import io
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50
IP_PKTINFO = 8
ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
RECEIVED_MAX = 200_000
FRAMES_MAX = 50_000
PARALLEL_PROBES = 64
STALLED_US, MORE_TIME_S = 100_000, 2.0
"""So much waiting for a processor during a probe gives it so much more time."""

SILENCE_US, LATE_MAX = 50_000, 6
"""What a sniffer waits for at its end, and how often once more."""

received = {}
"""(proto, own address, own port) → [(peer address, peer port, payload)], in order of arrival."""
listeners = {}
sniffers = {}
streams = {}


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def kind(proto):
    return socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM


def note(proto, server, peer, payload):
    seen = received.setdefault((proto, *server.getsockname()[:2]), [])
    if len(seen) < RECEIVED_MAX:
        seen.append((peer[0], peer[1], payload.decode("latin-1")))


# --- servers --------------------------------------------------------------------------------------------------------


def listen(proto, address, port, token, first_port=0):
    """Answer everyone with `TOKEN PEER-ADDRESS PEER-PORT OWN-PORT`, and remember who came."""
    unlisten(proto, address, port)  # what an earlier test module left
    server = socket.socket(family(address), kind(proto))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family(address) == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((address, port))
    port = server.getsockname()[1]
    received.setdefault((proto, address, port), [])
    listeners[proto, address, port] = server
    if proto == "tcp":
        server.listen(1024)
    target = serve_tcp if proto == "tcp" else serve_udp
    threading.Thread(target=target, args=(server, port, token), daemon=True).start()
    return port


def serve_udp(server, port, token):
    wildcard = server.getsockname()[0] in ("0.0.0.0", "::")
    if wildcard:
        level, option = (
            (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO)
            if server.family == socket.AF_INET6
            else (socket.IPPROTO_IP, IP_PKTINFO)
        )
        server.setsockopt(level, option, 1)
    while True:
        try:
            payload, control, _, peer = server.recvmsg(2048, 256)
        except OSError:
            return
        if peer is None:  # It was shut down meanwhile.
            return
        note("udp", server, peer, payload)
        with contextlib.suppress(OSError):
            server.sendmsg([answer(token, peer, port)], reply_source(control), 0, peer)


def reply_source(control):
    """Answer from the address that was asked, also on a host with several."""
    for level, name, data in control:
        if level == socket.IPPROTO_IP and name == IP_PKTINFO:
            _, local, _ = struct.unpack("=I4s4s", data[:12])
            return [(level, name, struct.pack("=I4s4s", 0, local, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and name == IPV6_PKTINFO:
            return [(level, name, data[:20])]
    return []


def serve_tcp(server, port, token):
    while True:
        try:
            connection, peer = server.accept()
        except OSError:
            return
        note("tcp", server, peer, b"")
        threading.Thread(target=talk, args=(connection, peer, port, token), daemon=True).start()


def talk(connection, peer, port, token):
    with contextlib.suppress(OSError), connection:
        connection.sendall(answer(token, peer, port) + b"\n")
        while connection.recv(4096):
            pass


def answer(token, peer, port):
    return f"{token} {peer[0]} {peer[1]} {port}".encode()


def unlisten(proto, address, port):
    server = listeners.pop((proto, address, port), None)
    if server is not None:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
    return None


def got(proto, address, port, clear=False):
    seen = list(received.get((proto, address, port), []))
    if clear:
        received[proto, address, port] = []
    return seen


# --- probes ---------------------------------------------------------------------------------------------------------


def probe(proto, address, port, timeout=0.5, source="", source_port=0, payload="probe"):
    """Return {"answer": TEXT, "local": [ADDRESS, PORT]}, or {"error": REASON}."""
    with socket.socket(family(address), kind(proto)) as client:
        client.settimeout(timeout)
        stalled = stalled_us()
        try:
            if source or source_port:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((source or ("::" if ":" in address else "0.0.0.0"), source_port))
            connected(client, address, port, stalled)
            if proto == "udp":
                client.send(payload.encode())
            text = heard(client, stalled).decode("latin-1").strip()
            if not text:
                return {"error": "closed"}
            return {"answer": text, "local": list(client.getsockname()[:2])}
        except TimeoutError:
            return {"error": "timeout"}
        except OSError as error:
            return {"error": errno.errorcode.get(error.errno, str(error))}


def stalled_us():
    """For how long somebody has been waiting for a processor, since the machine started; 0 where it is not told."""
    try:
        with open("/proc/pressure/cpu", encoding="ascii") as file:
            return int(file.readline().rpartition("=")[2])
    except OSError:
        return 0


def has_more_time(client, before):
    """After a timeout. Whoever would have answered may not have had his turn: then, once, there is more time."""
    if stalled_us() - before < STALLED_US:
        return False
    client.settimeout(MORE_TIME_S)
    return True


def heard(client, before):
    try:
        return client.recv(2048)
    except TimeoutError:
        if not has_more_time(client, before):
            raise
        return client.recv(2048)


def connected(client, address, port, before):
    try:
        client.connect((address, port))
    except TimeoutError:
        if not has_more_time(client, before):
            raise
        # It goes on meanwhile: the connection that was begun is waited for.
        if not select.select([], [client], [], MORE_TIME_S)[1]:
            raise
        if error := client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error)) from None


def probes(desired):
    """Many probes at once: a refused one costs its timeout, so forty in a row would cost forty."""
    results = [None] * len(desired)

    def one(index):
        results[index] = probe(**desired[index])

    for begin in range(0, len(desired), PARALLEL_PROBES):
        batch = range(begin, min(begin + PARALLEL_PROBES, len(desired)))
        threads = [threading.Thread(target=one, args=(i,)) for i in batch]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results


def send(address, port, payloads, source="", source_port=0):
    """One-way datagrams, from one socket; return how many left."""
    left = 0
    with socket.socket(family(address), socket.SOCK_DGRAM) as client:
        if source or source_port:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((source or ("::" if ":" in address else "0.0.0.0"), source_port))
        for payload in payloads:
            with contextlib.suppress(OSError):
                client.sendto(payload.encode(), (address, port))
                left += 1
    return left


def stream_start(name, address, port, interval=0.001, source_port=0):
    """Send numbered datagrams `NAME 1`, `NAME 2`, … until stopped, one socket, never reading."""
    client = socket.socket(family(address), socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("::" if ":" in address else "0.0.0.0", source_port))
    state = {"sent": 0, "on": True}

    def run():
        while state["on"]:
            with contextlib.suppress(OSError):
                client.sendto(f"{name} {state['sent'] + 1}".encode(), (address, port))
                state["sent"] += 1
            time.sleep(interval)
        client.close()

    thread = threading.Thread(target=run, daemon=True)
    streams[name] = (state, thread)
    thread.start()
    return client.getsockname()[1]


def stream_count(name):
    return streams[name][0]["sent"]


def stream_stop(name):
    state, thread = streams.pop(name)
    state["on"] = False
    thread.join()
    return state["sent"]


# --- frames ---------------------------------------------------------------------------------------------------------


def frames(ifname, raw, gap=0.0):
    """Put Ethernet frames (hex) on a link exactly as they are."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((ifname, 0))
        for frame in raw:
            link.send(bytes.fromhex(frame))
            if gap:
                time.sleep(gap)
    return len(raw)


def flood(ifname, count, destination):
    """Frames under random source MACs."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((ifname, 0))
        tail = bytes.fromhex(destination.replace(":", ""))
        for _ in range(count):
            source = bytes([0x02]) + os.urandom(5)
            link.send(tail + source + b"\x88\xb5" + bytes(46))
    return count


def sniff_start(ifname):
    """Collect what arrives at a link (not what leaves it), from the moment this returns."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # Protocol 0: nothing arrives before the bind.
    with contextlib.suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    link.bind((ifname, ETH_P_ALL))
    link.settimeout(SILENCE_US / 1e6)
    state = {"on": True, "frames": []}

    def run():
        stalled, late = stalled_us(), 0
        while True:
            try:
                frame, where = link.recvfrom(65535)
            except TimeoutError:
                before, stalled = stalled, stalled_us()
                if not state["on"]:
                    # Silence on a busy machine may be that nobody has had a turn.
                    if stalled - before < SILENCE_US // 2 or late == LATE_MAX:
                        break
                    late += 1
                continue
            except OSError:
                break
            if where[2] != PACKET_OUTGOING and len(state["frames"]) < FRAMES_MAX:
                state["frames"].append(frame.hex())
        link.close()

    thread = threading.Thread(target=run, daemon=True)
    sniffers[ifname] = (state, thread)
    thread.start()
    return None


def sniff_stop(ifname):
    """What has arrived, after 50 ms of silence."""
    state, thread = sniffers.pop(ifname)
    state["on"] = False
    thread.join()
    return state["frames"]


# --- everything else ------------------------------------------------------------------------------------------------


def run(argv, text="", timeout=20):
    done = subprocess.run(
        argv, input=text, capture_output=True, text=True, timeout=timeout, errors="replace", check=False
    )
    return [done.returncode, done.stdout, done.stderr]


def python(source):
    """Run Python source; what it leaves in `result`, or else what it printed, is the answer."""
    names = {"result": None}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "<test>", "exec"), names)
    return printed.getvalue() if names["result"] is None else names["result"]


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return None


OPS = {
    "listen": listen,
    "unlisten": unlisten,
    "got": got,
    "probe": probe,
    "probes": probes,
    "send": send,
    "stream_start": stream_start,
    "stream_count": stream_count,
    "stream_stop": stream_stop,
    "frames": frames,
    "flood": flood,
    "sniff_start": sniff_start,
    "sniff_stop": sniff_stop,
    "run": run,
    "python": python,
    "read": read,
    "write": write,
}


def main():
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # Nothing that runs in here may write between our answers.
    print(json.dumps({"result": os.getpid()}), file=replies, flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            reply = {"result": OPS[arguments.pop("op")](**arguments)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)
    # The threads are daemons; leave at once, and with us the namespace.
    os._exit(0)


if __name__ == "__main__":
    main()
