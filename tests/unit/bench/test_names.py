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


def waited(monkeypatch: pytest.MonkeyPatch, report: str, tmp_path) -> float:
    started: list[list[str]] = []

    class Flood:
        def __init__(self, argv: list[str], **_: object) -> None:
            started.append(argv)

        def wait(self) -> None:
            started.append(["ended"])

    monkeypatch.setattr(names.subprocess, "Popen", Flood)
    monkeypatch.setattr(names, "in_sandbox", lambda *_: report)
    monkeypatch.setattr(names, "QUESTIONS", str(tmp_path / "questions"))
    monkeypatch.setattr(names, "NOBODY", str(tmp_path / "nobody"))
    try:
        return names.delay("/run/netns/s0", "/run/netns/s1", "")
    finally:
        assert started[0][1] == "--net=/run/netns/s1"
        assert started[1] == ["ended"], "whatever became of the questions"


def test_the_delay_is_what_all_but_one_in_a_hundred_wait_at_most(monkeypatch, tmp_path) -> None:
    told = "".join(f"> NOERROR w{number} A 0.{number + 1:06}\n" for number in range(200))
    assert waited(monkeypatch, told + REPORT, tmp_path) == pytest.approx(0.000199)


@pytest.mark.parametrize("report", [REPORT, "> NOERROR w0 A 0.001\nsome were lost\n"])
def test_a_delay_is_of_answers_alone(monkeypatch, tmp_path, report: str) -> None:
    with pytest.raises(HostError, match="dnsperf"):
        waited(monkeypatch, report, tmp_path)
