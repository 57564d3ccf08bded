"""`python -m bench`: what it runs, and what it says when it cannot."""

import json

import bench.__main__ as main_module
import pytest
from bench import machine
from bench.host import HostError
from bench.report import Goal, Report, Row


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "missing_tools", list)
    monkeypatch.setattr(machine, "settle", lambda _spare: None)


def install(monkeypatch: pytest.MonkeyPatch, **benchmarks) -> None:
    monkeypatch.setattr(main_module, "BENCHMARKS", {k: (v, f"about {k}") for k, v in benchmarks.items()})


def one_row(name: str) -> list[Row]:
    return [Row(benchmark=name, what="w", ours=1.0, unit="s", goal=Goal("at most", 2.0, "s"))]


def broken() -> list[Row]:
    raise HostError("iperf3 is not well")


def test_one_benchmark_runs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, first=lambda: one_row("first"), second=lambda: one_row("second"))
    assert main_module.main(["second"]) == 0
    out = capsys.readouterr().out
    assert "second" in out
    assert "first" not in out


def test_all_run_when_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, first=lambda: one_row("first"), second=lambda: one_row("second"))
    assert main_module.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [r["benchmark"] for r in report["rows"]] == ["first", "second"]
    assert report["machine"]["kernel"]


def test_a_benchmark_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, first=broken, second=lambda: one_row("second"))
    assert main_module.main([]) == 1
    captured = capsys.readouterr()
    assert "second" in captured.out
    assert "first: iperf3 is not well" in captured.err


def test_an_unknown_name_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main_module.main(["atach"])
    assert stopped.value.code == 2
    assert "there is no benchmark atach: api, " in capsys.readouterr().err


def test_missing_packages_are_named_and_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, first=broken)
    monkeypatch.setattr(machine, "missing_tools", lambda: ["iperf3", "netavark"])
    assert main_module.main([]) == 1
    assert "apt-get install iperf3 netavark" in capsys.readouterr().err


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main_module.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(main_module.BENCHMARKS)


def test_the_machine_is_described() -> None:
    facts = machine.facts()
    assert set(facts) == {"kernel", "processor", "Python", "peers", "load before"}
    assert all(facts.values())


def test_a_report_says_the_load_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, first=lambda: one_row("first"))
    report, failures = main_module.measure(["first"])
    assert isinstance(report, Report)
    assert failures == 0
    assert {"load before", "load after"} <= set(report.machine)
