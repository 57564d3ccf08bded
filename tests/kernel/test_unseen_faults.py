"""Law: where a packet dies, `explain --observed` never says that all is well; where all is well, it says nothing else.

Ground truth is a real packet. For each fault of `unseen_faults.py` the answer must name it, say what it did not read, or be
right that the packet arrives.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from harness import attach
from harness.api import ApiError
from harness.host import ROOT, Host, Lan, Workload
from harness.netns import eventually
from kernel.test_faults import NUMBER, Town
from kernel.unseen_faults import HEALTHY, UNSEEN, Unseen

pytestmark = pytest.mark.kernel

TIMEOUT_S = 0.4
WELL_S, SETTLED_S = 15.0, 5.0


class Unwell(Town):
    def __init__(self, lan: Lan, host: Host, pins: str) -> None:
        super().__init__(lan, host)
        program = f"env PYTHONPATH={ROOT}/src {sys.executable} {attach.__file__}"
        self.words |= {
            "weblink": self.boxes["web"].host_link,
            "far4": self.boxes["far"].address(4),
            "attach": f'attach() {{ {program} "$@" {pins}/dropper; }}; attach',
            "detach": f"rm -f {pins}/dropper",
        }

    def reattach(self, box: Workload) -> None:
        super().reattach(box)
        self.words["weblink"] = self.boxes["web"].host_link

    def explain(self, ask: str) -> dict:
        """What is answered; as `refused` where that is an error."""
        words = ask.format(**self.words).split()
        fields: dict[str, object] = {"observed": True, "family": 6 if "-6" in words else 0}
        words = [word for word in words if word not in {"-6", "--from"}]
        if "--proto" in words:
            at = words.index("--proto")
            fields["proto"] = words[at + 1]
            del words[at : at + 2]
        fields |= {"source": words[0], "target": words[1]}
        try:
            return self.host.api.post("/explain", fields)
        except ApiError as error:
            if error.status >= 500:
                raise
            return {"outcome": "refused", "summary": str(error)}

    def arrives(self, probe: tuple[str, str, str, str]) -> bool:
        where, proto, address, port = (word.format(**self.words) for word in probe)
        if proto == "icmp":
            return self.place(where).run("ping", "-c1", "-W1", address).returncode == 0
        return "answer" in self.place(where).probe(proto, address, int(port), timeout=TIMEOUT_S)

    def settled(self, fault: Unseen) -> bool:
        """Whether it arrives. The fast path closes, and objects are repaired, a moment after a change."""
        with suppress(AssertionError):
            eventually(lambda: self.arrives(fault.probe) is not fault.dies, SETTLED_S)
            return not fault.dies
        return fault.dies


def told(view: dict) -> str:
    lines = [view.get("summary", ""), *(view.get("drift") or []), *(view.get("unread") or [])]
    return "\n".join(lines)


def is_all_clear(view: dict) -> bool:
    return view["outcome"] == "passes"


@pytest.fixture(scope="module")
def town(lan: Lan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unwell]:
    pins = str(tmp_path_factory.mktemp("pins"))
    assert os.system(f"mount -t bpf bpf {pins}") == 0
    try:
        with Host(lan, number=NUMBER).start() as host:
            town = Unwell(lan, host, pins)
            assert town.is_well()
            yield town
            for box in town.boxes.values():
                box.close()
    finally:
        os.system(f"umount -l {pins}")


@pytest.mark.parametrize("case", HEALTHY, ids=lambda case: case[0])
def test_where_all_is_well_nothing_else_is_said(town: Unwell, case: tuple) -> None:
    assert town.arrives(case[1])
    view = town.explain(case[0])
    assert (view["drift"], view["unread"]) == ([], []), told(view)
    assert view["outcome"] == "passes"


@pytest.mark.parametrize("fault", UNSEEN, ids=lambda fault: fault.name)
def test_no_all_clear_beside_a_packet_that_dies(town: Unwell, fault: Unseen) -> None:
    try:
        town.type(fault.make)
        arrives = town.settled(fault)
        view = town.explain(fault.ask)
    finally:
        town.type(fault.undo)
        eventually(lambda: town.arrives(fault.probe), WELL_S, f"the packet arrives again after: {fault.name}")
    print(told(view))
    assert arrives is not fault.dies, "the corpus is wrong about this fault"
    if fault.dies:
        assert not is_all_clear(view), told(view)
    else:
        assert view["outcome"] != "fails", f"it says that a packet dies which arrives:\n{told(view)}"
    assert fault.names in told(view)
