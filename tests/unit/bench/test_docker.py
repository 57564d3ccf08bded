"""The Docker benchmark's arithmetic, and what its contenders are asked for."""

import ipaddress

import pytest
from bench.docker import NETWORKS, NONE, ROUNDS, asked, rows
from bench.peers import PORT_FIRST

TOOK = {
    "ours": [0.40, 0.41, 0.60],
    "by docker": [0.50, 0.50, 0.75],
    "theirs": [0.44, 0.41, 0.72],
    NONE: [0.30, 0.31, 0.32],
}


def test_each_network_is_of_the_driver_that_it_stands_for() -> None:
    options = {name: dict(zip(words[::2], words[1::2], strict=True)) for name, words in NETWORKS.items()}
    assert {name: o["-d"] for name, o in options.items()} == {
        "ours": "sealane",
        "by docker": "sealane",
        "theirs": "bridge",
    }
    assert options["by docker"]["-o"] == "sealane.ports=docker"
    assert "-o" not in options["ours"]
    assert "--ipam-driver" not in options["theirs"], "theirs is all Docker's own"
    subnets = [ipaddress.ip_network(o["--subnet"]) for o in options.values()]
    assert len({s.prefixlen for s in subnets}) == 1
    assert not any(a.overlaps(b) for a in subnets for b in subnets if a is not b)


def test_all_are_asked_for_the_same_and_without_a_network_no_port_is() -> None:
    words = {name: asked(name, 8080) for name in (*NETWORKS, NONE)}
    assert words["by docker"][3] == "by-docker", "a name that Docker takes"
    rest = {name: [*w[:3], *w[4:]] for name, w in words.items()}
    assert rest["ours"] == rest["by docker"] == rest["theirs"]
    assert "8080:80" in rest["ours"]
    assert "-p" not in words[NONE]


def test_a_port_is_used_once_and_is_one() -> None:
    """Each start has its own, warm-up included."""
    assert PORT_FIRST + (ROUNDS + 1) * (len(NETWORKS) + 1) < 65536


def test_ratios_are_of_the_same_round() -> None:
    ours, by_docker = rows(TOOK)
    assert ours.ratio == pytest.approx(1.1), (
        "1.1, 1.0, 1.2: their middle, and not that of the medians, 0.44 / 0.41"
    )
    assert by_docker.ratio == pytest.approx(0.88)
    assert (ours.ours, ours.theirs, ours.unit) == (0.41, 0.44, "s")
    assert (ours.what, by_docker.what) == ("published by sealane", "published by Docker")


def test_the_goal_is_not_to_be_slower() -> None:
    ours, by_docker = rows(TOOK)
    assert ours.is_met
    assert by_docker.is_met is None, "with a second link it does more than Docker's own"
    (alike, _) = rows({**TOOK, "ours": TOOK["theirs"]})
    assert alike.is_met
    (slower, _) = rows({**TOOK, "ours": TOOK["by docker"]})
    assert not slower.is_met


def test_what_docker_takes_without_a_network_is_told_beside_it() -> None:
    assert all("310 ms" in row.note for row in rows(TOOK))
