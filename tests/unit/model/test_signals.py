import signal

import pytest

from sealane.model.signals import signal_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("15", 15),
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmin+3", 37),
        ("SIGRTMAX", 64),
        ("RTMAX-14", 50),
        ("64", 64),
        ("SIGRTMIN+30", 64),
    ],
)
def test_a_signal_by_number_and_by_name(text, number):
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "32",
        "33",
        "65",
        "150",
        "-1",
        "+15",
        "1٥",
        "SIG",
        "TERMINATE",
        "SIGRTMIN+31",
        "RTMAX-31",
        "RTMIN-1",
        "RTMIN+",
    ],
)
def test_what_is_no_signal(text):
    assert signal_number(text) is None


def test_all_that_the_machine_has():
    assert {signal_number(str(int(number))) for number in signal.valid_signals()} == set(
        map(int, signal.valid_signals())
    )
