"""docs/explain.md: each example of `sealane trace` is what it prints, but for links, ports and times.

A console block after `<!-- trace: SETTING -->` holds one command and its output; `pytest --update` writes the outputs.
"""

import contextlib
import re
from collections.abc import Iterator

import pytest

from docs.markdown import ROOT
from harness.host import Host, Lan
from kernel.trace_town import Town

pytestmark = pytest.mark.kernel

PAGE = ROOT / "docs" / "explain.md"
BLOCK = re.compile(
    r"<!-- trace: (?P<setting>[^>]+) -->\n```console\n\$ sealane trace (?P<words>.*)\n(?P<output>(?s:.*?))```\n"
)
FIREWALL = """table ip firewall {
    chain forward {
        type filter hook forward priority 10;
        tcp dport 9 drop comment "no discard service"
    }
}
"""
VARIES = (
    (re.compile(r"\bsl([eb])[0-9a-f]{12}\b"), r"sl\g<1>"),
    (re.compile(r"(?<=192\.0\.2\.200:)\d+"), "PORT"),
    (re.compile(r"after \d+ µs"), "after N µs"),
)


@pytest.fixture(scope="module")
def town(shared_host: Host, lan: Lan) -> Iterator[Town]:
    town = Town(shared_host)
    with contextlib.closing(town.boxes["web"].ns.listen("tcp", "0.0.0.0", 80)):
        yield town


def printed(town: Town, lan: Lan, setting: str, *words: str) -> str:
    host = town.host
    match setting:
        case "from outside":
            with town.live(*words, json=False) as trace:
                lan.ext.probe("tcp", host.address(4), 8080)
                out, _ = trace.process.communicate(timeout=100)
        case "a firewall":
            host.ns.sh("nft", "-f", "-", text=FIREWALL)
            out = host.sealane("trace", *town.words(*words), check=False).stdout
            host.ns.sh("nft", "delete", "table", "ip", "firewall")
        case _:
            out = host.sealane("trace", *town.words(*words), check=False).stdout
    for box, sandbox in town.names.items():
        out = out.replace(f"{sandbox:12}", f"{box:12}").replace(sandbox, box)
    return str(out)


def plain(output: str) -> str:
    for pattern, replacement in VARIES:
        output = pattern.sub(replacement, output)
    return output


EXAMPLES = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_is_what_is_printed(
    number: int, town: Town, lan: Lan, request: pytest.FixtureRequest
) -> None:
    example = EXAMPLES[number]
    output = printed(town, lan, example["setting"], *example["words"].removesuffix(" --live").split())
    if request.config.getoption("--update"):
        text = PAGE.read_text(encoding="utf-8")
        block = list(BLOCK.finditer(text))[number]
        PAGE.write_text(
            text[: block.start("output")] + output + text[block.end("output") :], encoding="utf-8"
        )
    else:
        assert plain(example["output"]) == plain(output)


def test_no_block_is_overlooked() -> None:
    assert len(EXAMPLES) == PAGE.read_text(encoding="utf-8").count("$ sealane trace ") >= 3
