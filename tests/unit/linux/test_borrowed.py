"""What the host's own settings were is remembered over crashes, and given back to nobody who has changed them since."""

import os
from collections.abc import Iterator

import pytest

from sealane.linux import borrowed, sysctl
from sealane.linux.borrowed import FORWARDING, Borrowed

BOOT = "boot-1"
REDIRECTS = "net/ipv4/conf/all/accept_redirects"


class Settings:
    """/proc/sys of a kernel, as far as forwarding goes (inet_forward_change, addrconf_fixup_forwarding)."""

    def __init__(self) -> None:
        self.links = ["default", "eth0", "eth1"]
        self.values = {
            FORWARDING[4]: "0",
            FORWARDING[6]: "0",
            REDIRECTS: "1",
            "net/ipv6/conf/eth0/accept_ra": "1",
        }
        for tree in ("net/ipv4/conf", "net/ipv6/conf"):
            self.values |= {f"{tree}/{name}/forwarding": "0" for name in self.links}
        self.written: list[tuple[str, str]] = []

    def read(self, path: str) -> str | None:
        return self.values.get(path)

    def write(self, path: str, value: str) -> None:
        self.written.append((path, value))
        changes = self.values[path] != value
        self.values[path] = value
        if changes and path in FORWARDING.values():
            tree = "net/ipv4/conf" if path == FORWARDING[4] else "net/ipv6/conf"
            self.values |= {f"{tree}/{name}/forwarding": value for name in self.links}
            if path == FORWARDING[4]:
                self.values[REDIRECTS] = "0" if value == "1" else "1"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    settings = Settings()
    monkeypatch.setattr(sysctl, "read", settings.read)
    monkeypatch.setattr(sysctl, "write", settings.write)
    monkeypatch.setattr(borrowed, "_links", lambda _: settings.links)
    return settings


def take(loans: Borrowed, path: str, value: str = "1") -> None:
    loans.take(path, value)
    sysctl.write(path, value)


@pytest.mark.parametrize("path", [*FORWARDING.values(), "net/ipv6/conf/eth0/accept_ra"])
def test_what_was_comes_back(kernel: Settings, tmp_path: "os.PathLike[str]", path: str) -> None:
    """By another process, which remembers nothing."""
    before = dict(kernel.values)
    take(Borrowed(f"{tmp_path}/b", BOOT), path, "2")
    assert kernel.values[path] == "2"
    again = Borrowed(f"{tmp_path}/b", BOOT)
    assert list(again.loans) == [path]
    again.give_back(path)
    assert kernel.values == before
    assert Borrowed(f"{tmp_path}/b", BOOT).loans == {}


def test_it_is_remembered_before_it_is_set(kernel: Settings, tmp_path: "os.PathLike[str]") -> None:
    Borrowed(f"{tmp_path}/b", BOOT).take(FORWARDING[4], "1")
    assert kernel.written == []
    assert Borrowed(f"{tmp_path}/b", BOOT).loans[FORWARDING[4]].former == "0"


def test_what_cannot_be_remembered_is_not_set(kernel: Settings, tmp_path: "os.PathLike[str]") -> None:
    loans = Borrowed(f"{tmp_path}/no/such/folder", BOOT)
    with pytest.raises(FileNotFoundError):
        loans.take(FORWARDING[4], "1")
    assert loans.loans == {}


def test_what_each_link_had_comes_back(kernel: Settings) -> None:
    own = {"net/ipv4/conf/eth1/forwarding": "1", REDIRECTS: "0"}
    kernel.values |= own
    loans = Borrowed("", BOOT)
    take(loans, FORWARDING[4])
    loans.give_back(FORWARDING[4])
    assert {path: kernel.values[path] for path in own} == own
    assert kernel.values["net/ipv4/conf/eth0/forwarding"] == "0"


def test_what_somebody_has_changed_since_is_his(kernel: Settings) -> None:
    kernel.values["net/ipv4/conf/eth1/forwarding"] = "1"
    loans = Borrowed("", BOOT)
    take(loans, FORWARDING[4])
    kernel.values["net/ipv4/conf/eth1/forwarding"] = "0"
    kernel.values[REDIRECTS] = "1"
    loans.give_back(FORWARDING[4])
    assert (kernel.values["net/ipv4/conf/eth1/forwarding"], kernel.values[REDIRECTS]) == ("0", "1")


@pytest.mark.parametrize("value", ["0", "7"])
def test_a_switch_that_somebody_has_changed_since_is_left(kernel: Settings, value: str) -> None:
    loans = Borrowed("", BOOT)
    take(loans, FORWARDING[6])
    kernel.values[FORWARDING[6]] = value
    kernel.written.clear()
    loans.give_back(FORWARDING[6])
    assert (kernel.written, loans.loans) == ([], {})


def test_links_of_ours_go_on_forwarding(kernel: Settings) -> None:
    """An internal routed network needs its own links' setting, and not the switch."""
    loans = Borrowed("", BOOT)
    take(loans, FORWARDING[4])
    kernel.links.append("sle0")
    kernel.values["net/ipv4/conf/sle0/forwarding"] = "1"
    loans.give_back(FORWARDING[4])
    assert kernel.values["net/ipv4/conf/sle0/forwarding"] == "1"
    assert kernel.values["net/ipv4/conf/eth0/forwarding"] == "0"


def test_what_is_as_wanted_already_is_not_borrowed(kernel: Settings) -> None:
    """The host forwarded before we came, so it is not ours to end."""
    kernel.write(FORWARDING[4], "1")
    loans = Borrowed("", BOOT)
    loans.take(FORWARDING[4], "1")
    loans.give_back(FORWARDING[4])
    assert (loans.loans, kernel.values[FORWARDING[4]]) == ({}, "1")


def test_a_repair_forgets_nothing(kernel: Settings) -> None:
    """Somebody switches it off, with each link's own; it is put on again."""
    kernel.values["net/ipv4/conf/eth1/forwarding"] = "1"
    loans = Borrowed("", BOOT)
    take(loans, FORWARDING[4])
    kernel.write(FORWARDING[4], "0")
    take(loans, FORWARDING[4])
    loans.give_back(FORWARDING[4])
    assert kernel.values["net/ipv4/conf/eth1/forwarding"] == "1"


@pytest.mark.parametrize("kept", [b"", b"{", b'{"boot":"another","loans":{"net/ipv4/ip_forward":{}}}'])
def test_what_is_of_another_boot_or_broken_is_nothing(
    kernel: Settings, tmp_path: "os.PathLike[str]", kept: bytes
) -> None:
    with open(f"{tmp_path}/b", "wb") as file:
        file.write(kept)
    assert Borrowed(f"{tmp_path}/b", BOOT).loans == {}
    take(Borrowed(f"{tmp_path}/b", "boot-0"), FORWARDING[4])
    assert Borrowed(f"{tmp_path}/b", BOOT).loans == {}
    assert set(Borrowed(f"{tmp_path}/b", "boot-0").loans) == {FORWARDING[4]}


def test_links_whose_setting_is_borrowed(kernel: Settings) -> None:
    loans = Borrowed("", BOOT)
    take(loans, "net/ipv6/conf/eth0/accept_ra", "2")
    take(loans, FORWARDING[6])
    assert list(loans.links("accept_ra")) == ["eth0"]
    del kernel.values["net/ipv6/conf/eth0/accept_ra"]
    assert list(loans.links("accept_ra")) == []
    loans.give_back("net/ipv6/conf/eth0/accept_ra")
    assert list(loans.loans) == [FORWARDING[6]]
