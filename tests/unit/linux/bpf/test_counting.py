"""Counting programs: the kernel writes into the question, and knows no end of it but its own."""

from sealane.linux.bpf import syscall


def test_the_question_has_room_for_all_that_is_answered() -> None:
    """`revision` is at 56 (union bpf_attr, query): with less, the answer of TCX falls on somebody else's memory."""
    assert syscall._QUERY.size == 64
