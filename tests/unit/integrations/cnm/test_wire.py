"""Docker's records: as dockerd 20.10.24 was seen to send them."""

import msgspec
import pytest

from sealane.engine.errors import InvalidError
from sealane.integrations.cnm import wire
from sealane.wire.requests import PublishRequest


def options(**values: object) -> wire.Options:
    names = {"mac": wire.MAC, "ports": wire.PORTMAP}
    return wire.Options({names.get(k, k): msgspec.Raw(msgspec.json.encode(v)) for k, v in values.items()})


def binding(port: int, host: int = 0, **fields: object) -> dict[str, object]:
    plain = {"Proto": 6, "IP": "", "Port": port, "HostIP": "", "HostPort": host, "HostPortEnd": host}
    return {**plain, **fields}


def test_a_network_is_read_as_dockerd_sends_it() -> None:
    body = (
        b'{"NetworkID":"fc01f9d9","Options":{"com.docker.network.enable_ipv6":true,'
        b'"com.docker.network.generic":{"com.docker.network.driver.mtu":"1400","foo":"bar"}},'
        b'"IPv4Data":[{"AddressSpace":"recL","AuxAddresses":{"sw":"10.50.0.5/24"},"Gateway":"10.50.0.1/24",'
        b'"Pool":"10.50.0.0/24"}],"IPv6Data":[{"AddressSpace":"recL","Gateway":"fd00:50::2/64","Pool":"fd00:50::/64"}]}\n'
    )
    read = msgspec.json.decode(body, type=wire.CreateNetwork)
    given = wire.options_of(read.options)
    assert given.get(wire.ENABLE_IPV6, bool, default=False) is True
    assert given.get(wire.LABELS, dict[str, str], {})["foo"] == "bar"
    assert read.ipv4 is not None
    assert read.ipv4[0].aux_addresses == {"sw": "10.50.0.5/24"}
    assert read.ipv6 is not None
    assert read.ipv6[0].aux_addresses is None


def test_what_is_absent_or_null_is_empty() -> None:
    read = msgspec.json.decode(b'{"NetworkID":"n","Options":null,"IPv6Data":null}', type=wire.CreateNetwork)
    assert (read.options, read.ipv4, read.ipv6) == (None, None, None)
    assert wire.options_of(read.options).text("anything") == ""
    assert wire.Options({"k": msgspec.Raw(b"null")}).text("k") == ""


def test_what_a_later_docker_adds_is_passed_over() -> None:
    read = msgspec.json.decode(b'{"NetworkID":"n","EndpointID":"e","New":{"x":[1]}}', type=wire.EndpointRef)
    assert (read.network, read.endpoint) == ("n", "e")


def test_an_option_of_another_type_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidError) as caught:
        options(flag="yes").get("flag", bool, default=False)
    assert caught.value.field == "Options.flag"


@pytest.mark.parametrize(
    ("sent", "read"),
    [("AkKqu8zd", "02:42:aa:bb:cc:dd"), ("02:42:aa:bb:cc:dd", "02:42:aa:bb:cc:dd"), ("", "")],
)
def test_a_mac_is_base64_of_its_bytes(sent: str, read: str) -> None:
    assert wire.mac_of(options(mac=sent)) == read


def test_a_mac_that_is_neither_is_refused() -> None:
    with pytest.raises(InvalidError, match="base64"):
        wire.mac_of(options(mac="!!"))


class TestPorts:
    @staticmethod
    def of(*bindings: dict[str, object]) -> list[PublishRequest]:
        return wire.ports_of(options(ports=list(bindings)))

    def test_none_are_none(self) -> None:
        assert wire.ports_of(wire.Options()) == []

    def test_a_single_port(self) -> None:
        assert self.of(binding(80, 8080)) == [PublishRequest(host_first=8080, port=80)]

    def test_an_address_and_a_protocol(self) -> None:
        sent = binding(9000, 9000, Proto=17, HostIP="127.0.0.1")
        assert self.of(sent) == [
            PublishRequest(proto="udp", host_address="127.0.0.1", host_first=9000, port=9000)
        ]

    def test_runs_are_ranges_whatever_their_order(self) -> None:
        sent = [binding(8000 + i, 9000 + i) for i in (2, 0, 1)]
        assert self.of(*sent) == [PublishRequest(host_first=9000, port=8000, count=3)]

    @pytest.mark.parametrize("change", [{"Proto": 17}, {"HostIP": "127.0.0.1"}, {"HostPort": 7000}])
    def test_what_is_not_alike_is_no_run(self, change: dict[str, object]) -> None:
        assert len(self.of(binding(80, 8080), {**binding(81, 8081), "HostPortEnd": 0, **change})) == 2

    def test_ports_that_we_are_to_choose_stay_apart(self) -> None:
        """Free ones need not be neighbours."""
        assert self.of(binding(80), binding(81)) == [PublishRequest(port=80), PublishRequest(port=81)]

    def test_a_range_for_one_port_is_a_choice(self) -> None:
        chosen = PublishRequest(host_first=8000, host_last=8009, port=80, one_of=True)
        assert self.of({**binding(80, 8000), "HostPortEnd": 8009}) == [chosen]

    def test_an_unknown_protocol_is_refused(self) -> None:
        with pytest.raises(InvalidError, match="TCP, UDP and SCTP"):
            self.of(binding(80, 80, Proto=47))


def test_answers_are_spelt_as_docker_reads_them() -> None:
    joined = wire.Joined(interface=wire.InterfaceName(source="slh1", prefix="eth"), gateway="10.1.0.1")
    assert msgspec.json.decode(msgspec.json.encode(joined)) == {
        "InterfaceName": {"SrcName": "slh1", "DstPrefix": "eth"},
        "Gateway": "10.1.0.1",
        "GatewayIPv6": "",
    }
    made = wire.CreatedEndpoint(interface=wire.Interface(mac="02:00:00:00:00:01"))
    assert msgspec.json.decode(msgspec.json.encode(made)) == {
        "Interface": {"Address": "", "AddressIPv6": "", "MacAddress": "02:00:00:00:00:01"}
    }
