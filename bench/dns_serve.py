"""Serve a small zone for load tests: ``dns_serve.py ADDRESS PORT [MEMBERS]``, until standard input closes.

Names are w0, w1, … on the network ``bench``; askers are recognised on 10.0.0.0/8 and 127.0.0.0/8. For dnsperf against it
and against aardvark-dns see bench/dns.sh.
"""

import sys

from sealane.dns import DnsServer, ZoneMember, ZoneNetwork


def main(address: str, port: str, members: str = "100") -> None:
    zone = ZoneNetwork(
        id="bench",
        name="bench",
        listen=(address,),
        subnets=("10.0.0.0/8", "127.0.0.0/8"),
        members=tuple(
            ZoneMember(
                endpoint=f"e{number}",
                sandbox=f"s{number}",
                names=(f"w{number}", "all" if number < 4 else f"alias{number}"),
                addresses=(f"10.66.{number // 250 + 1}.{number % 250 + 1}",),
            )
            for number in range(int(members))
        ),
    )
    server = DnsServer(port=int(port))
    server.update([zone])
    server.start()
    for problem in server.problems():
        print(problem, file=sys.stderr)
    sys.stdin.read()
    print(server.stats(), file=sys.stderr)
    server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
