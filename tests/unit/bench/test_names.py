"""What counts as an answer of dnsperf's."""

import pytest
from bench import names
from bench.host import HostError

REPORT = """\
Statistics:

  Queries sent:         120000
  Queries completed:    120000 (100.00%)
  Queries lost:         0 (0.00%)

  Response codes:       NOERROR 120000 (100.00%)
  Average packet size:  request 20, response 36
  Run time (s):         3.000100
  Queries per second:   39998.666711
"""


def asked(monkeypatch: pytest.MonkeyPatch, report: str, tmp_path) -> tuple[float, list[str], str]:
    argv: list[str] = []

    def in_sandbox(path: str, *words: str) -> str:
        argv.extend((path, *words))
        return report

    monkeypatch.setattr(names, "in_sandbox", in_sandbox)
    monkeypatch.setattr(names, "QUESTIONS", str(tmp_path / "questions"))
    rate = names.load("/run/netns/s0", ".dns.podman")
    return rate, argv, (tmp_path / "questions").read_text()


def test_the_rate_is_read_off_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    rate, argv, questions = asked(monkeypatch, REPORT, tmp_path)
    assert rate == pytest.approx(39998.67, abs=0.01)
    assert argv[0] == "/run/netns/s0"
    assert argv[argv.index("-s") + 1] == names.GATEWAY
    assert questions.splitlines()[:2] == ["w0.dns.podman A", "w1.dns.podman A"]
    assert len(questions.splitlines()) == names.NAMES


def test_fast_refusals_are_no_answers(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    refused = REPORT.replace("NOERROR 120000 (100.00%)", "NOERROR 119000 (99.17%), NXDOMAIN 1000 (0.83%)")
    with pytest.raises(HostError, match="NXDOMAIN"):
        asked(monkeypatch, refused, tmp_path)


def test_a_report_without_a_rate_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    with pytest.raises(HostError, match="unable to connect"):
        asked(monkeypatch, "Error: unable to connect", tmp_path)
