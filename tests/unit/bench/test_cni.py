"""The CNI benchmark's arithmetic, and what its contenders are given."""

import threading

from bench import cni
from bench.cni import AT_ONCE, _configured, _overhead, _row, at_once


def test_each_call_has_a_port_of_its_own() -> None:
    ports = {
        _configured(cni._OURS, n)["runtimeConfig"]["portMappings"][0]["hostPort"] for n in range(AT_ONCE)
    }
    assert len(ports) == AT_ONCE
    assert "runtimeConfig" not in cni._OURS


def test_the_executables_own_share_is_what_its_question_does_not_explain() -> None:
    row = _overhead({"ADD": [0.020, 0.030, 0.022], "question": [0.005, 0.006, 0.006], "process": [0.009]})
    assert row.ours == 0.016
    assert row.is_met is False
    assert "9.0 ms" in row.note


def test_ratios_are_of_the_same_verb() -> None:
    took = {"DEL, host-local": [1.0, 2.0], "peer DEL": [4.0, 8.0], "peer ADD": [100.0, 100.0]}
    row = _row("DEL, host-local", took)
    assert (row.ratio, row.is_met) == (4.0, False)


def test_calls_at_once_are_under_way_together() -> None:
    together = threading.Barrier(AT_ONCE, timeout=10)
    seen: list[int] = []

    def act(number: int) -> float:
        together.wait()
        seen.append(number)
        return 0.0

    assert at_once(act, 7) > 0
    assert sorted(seen) == list(range(7, 7 + AT_ONCE))
