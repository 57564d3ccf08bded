"""Whether a chain's rules do what they did when they were read last, also over the daemon's restarts."""

import os
from hashlib import sha512

import pytest

from sealane.linux.rule_contents import RuleContents, content

FORWARD, OTHER = ("ip", "forward"), ("ip6", "forward")
DROP, ACCEPT = [b"counter", b"drop"], [b"counter", b"accept"]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "rules.json")


def kept(path, chain=FORWARD, contents=DROP):
    first = RuleContents(path)
    first.learn(chain, contents)
    first.keep()


def test_the_first_reading_is_believed_and_every_other_compared():
    known = RuleContents()
    assert known.are_known(FORWARD, DROP)
    assert known.are_known(OTHER, ACCEPT)
    assert known.are_known(FORWARD, DROP)
    assert not known.are_known(FORWARD, ACCEPT)
    assert not known.are_known(FORWARD, [])
    assert known.are_known(FORWARD, DROP), "what was wrong is not learnt"


def test_what_was_learnt_is_what_should_be():
    known = RuleContents()
    known.are_known(FORWARD, ACCEPT)
    known.learn(FORWARD, DROP)
    assert not known.are_known(FORWARD, ACCEPT)
    known.learn(FORWARD, [])
    assert known.are_known(FORWARD, ACCEPT), "a chain that went is as one never seen"


@pytest.mark.parametrize(
    ("one", "other"), [([b"ab", b"c"], [b"a", b"bc"]), ([b"ab"], [b"a", b"b"]), ([b"", b"a"], [b"a", b""])]
)
def test_where_a_rule_ends_matters(one, other):
    known = RuleContents()
    known.learn(FORWARD, one)
    assert not known.are_known(FORWARD, other)


def test_the_next_start_knows_them(path):
    kept(path)
    later = RuleContents(path)
    assert later.are_known(FORWARD, DROP)
    assert not later.are_known(FORWARD, ACCEPT)


def test_what_was_seen_first_is_kept_too(path):
    first = RuleContents(path)
    first.are_known(FORWARD, DROP)
    first.keep()
    assert not RuleContents(path).are_known(FORWARD, ACCEPT)


def test_what_has_gone_is_not_kept(path):
    kept(path)
    second = RuleContents(path)
    second.learn(FORWARD, ())
    second.keep()
    assert RuleContents(path).are_known(FORWARD, ACCEPT)


def test_nothing_is_written_while_nothing_changes(path):
    kept(path)
    os.utime(path, (1, 1))
    again = RuleContents(path)
    again.are_known(FORWARD, ACCEPT)
    again.learn(FORWARD, ())
    again.learn(FORWARD, DROP)
    again.keep()
    assert os.stat(path).st_mtime == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"ip forward": 1}', b"\xff", sha512(b"").digest()])
def test_a_file_that_cannot_be_read_is_none(path, data):
    with open(path, "wb") as file:
        file.write(data)
    found = RuleContents(path)
    assert found.are_known(FORWARD, ACCEPT)
    found.keep()
    assert not RuleContents(path).are_known(FORWARD, DROP)


def test_what_cannot_be_written_is_tried_again(path, tmp_path):
    os.mkdir(f"{path}.new")
    kept_later = RuleContents(path)
    kept_later.learn(FORWARD, DROP)
    kept_later.keep()
    assert not os.path.exists(path)
    os.rmdir(f"{path}.new")
    kept_later.keep()
    assert os.listdir(tmp_path) == ["rules.json"]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_a_rule_has_counted_is_none_of_what_it_does():
    def rule(packets):
        return b"....counter\0" + b"\1" * 4 + packets.to_bytes(24, "big") + b"....accept"

    assert content(rule(1)) == content(rule(10**9))
    assert content(rule(1)) != content(rule(1).replace(b"accept", b"drop\0\0"))
