"""Output on disk: format, bounds, full disks; and reading it while it is written and rotated."""

import os
import resource
import threading

import pytest

from sealane.containers import logs
from sealane.containers.logs import LogLine, follow_logs, parse_line, read_logs
from sealane.containers.logwriter import MAX_LINE_BYTES, LogWriter, timestamp

NOW = 1_795_526_312_000_000_001


def texts(folder, **options):
    return [line.text for line in read_logs(str(folder), **options)]


def test_the_format_is_cris(tmp_path):
    LogWriter(str(tmp_path)).feed("stderr", b"could not connect\n", NOW)
    line = b"2026-11-24T13:18:32.000000001Z stderr F could not connect\n"
    assert (tmp_path / "container.log").read_bytes() == line
    assert parse_line(line) == LogLine(
        "2026-11-24T13:18:32.000000001Z", "stderr", False, b"could not connect"
    )


def test_time_is_kept_to_the_nanosecond_and_read_to_the_microsecond():
    assert timestamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert parse_line(f"{timestamp(1_500_000_000)} stdout F x".encode()).unix_time == 1.5


def test_lines_are_put_together_from_chunks_by_stream(tmp_path):
    writer = LogWriter(str(tmp_path))
    writer.feed("stdout", b"one\ntw", NOW)
    writer.feed("stderr", b"err\n", NOW)
    writer.feed("stdout", b"o\n\nthree", NOW)
    assert texts(tmp_path) == [b"one", b"err", b"two", b""]
    writer.flush(NOW)
    assert texts(tmp_path) == [b"one", b"err", b"two", b"", b"three"]
    writer.flush(NOW)
    assert len(texts(tmp_path)) == 5


def test_any_bytes_are_kept(tmp_path):
    LogWriter(str(tmp_path)).feed("stdout", bytes(range(256)).replace(b"\n", b"") + b"\n", NOW)
    assert texts(tmp_path) == [bytes(range(256)).replace(b"\n", b"")]


@pytest.mark.parametrize("chunk_bytes", [1000, MAX_LINE_BYTES, 100_000])
def test_a_line_without_end_is_cut_in_pieces(tmp_path, chunk_bytes):
    writer = LogWriter(str(tmp_path))
    data = os.urandom(50_000).replace(b"\n", b"x") + b"\n"
    for at in range(0, len(data), chunk_bytes):
        writer.feed("stdout", data[at : at + chunk_bytes], NOW)
    lines = list(read_logs(str(tmp_path)))
    assert b"".join(line.text for line in lines) == data[:-1]
    assert all(len(line.text) <= MAX_LINE_BYTES for line in lines)
    assert [line.partial for line in lines] == [True] * (len(lines) - 1) + [False]


def test_files_rotate_and_the_oldest_goes(tmp_path):
    writer = LogWriter(str(tmp_path), max_bytes=1000, max_files=3)
    for number in range(200):
        writer.feed("stdout", f"line {number:04}\n".encode(), NOW)
    assert sorted(os.listdir(tmp_path)) == ["container.log", "container.log.1", "container.log.2"]
    assert all(os.path.getsize(tmp_path / name) <= 1000 + 50 for name in os.listdir(tmp_path))
    kept = texts(tmp_path)
    assert kept[-1] == b"line 0199"
    assert kept == [f"line {number:04}".encode() for number in range(200 - len(kept), 200)]
    assert len(kept) >= 38


def test_a_restarted_writer_appends(tmp_path):
    for text in (b"one\n", b"two\n"):
        writer = LogWriter(str(tmp_path), max_bytes=1000)
        writer.feed("stdout", text, NOW)
        writer.close()
    assert texts(tmp_path) == [b"one", b"two"]


def test_a_full_disk_loses_lines_counts_them_and_goes_on(tmp_path):
    writer = LogWriter(str(tmp_path))
    writer.feed("stdout", b"before\n", NOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so the write fails in the middle, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        writer.feed("stdout", b"x" * 200 + b"\nand\n", NOW)
        writer.feed("stdout", b"y" * 200 + b"\n", NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.feed("stdout", b"after\n", NOW)
    assert texts(tmp_path) == [b"before", b"[sealane] 3 lines lost: the log could not be written", b"after"]


def test_a_removed_folder_does_not_end_the_writer(tmp_path):
    writer = LogWriter(str(tmp_path / "gone"))
    writer.feed("stdout", b"lost\n", NOW)
    (tmp_path / "gone").mkdir()
    writer.feed("stdout", b"kept\n", NOW)
    assert texts(tmp_path / "gone")[-1] == b"kept"


def test_tail_and_since_choose(tmp_path):
    writer = LogWriter(str(tmp_path), max_bytes=300)
    for second in range(10):
        writer.feed("stdout", f"{second}\n".encode(), second * 1_000_000_000)
    assert texts(tmp_path, tail=3) == [b"7", b"8", b"9"]
    assert texts(tmp_path, tail=0) == []
    assert texts(tmp_path, since=8.0) == [b"8", b"9"]
    assert texts(tmp_path, since=2.0, tail=1) == [b"9"]


def test_no_log_is_no_lines(tmp_path):
    assert list(read_logs(str(tmp_path / "none"))) == []
    assert list(read_logs(str(tmp_path / "none"), tail=5)) == []
    assert list(follow_logs(str(tmp_path / "none"), alive=lambda: False)) == []


@pytest.mark.parametrize("line", [b"", b"x", b"a b c d", b"2026-11-24T13:18:32.000000001Z stdout X t"])
def test_foreign_lines_are_skipped(line):
    assert parse_line(line) is None


def test_following_ends_with_the_container_and_misses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "FOLLOW_PAUSE_S", 0.001)
    alive = threading.Event()
    alive.set()
    started = threading.Event()

    def write() -> None:
        writer = LogWriter(str(tmp_path))
        writer.feed("stdout", b"0\n", NOW)
        started.set()
        for number in range(1, 500):
            writer.feed("stdout", f"{number}\n".encode(), NOW)
        alive.clear()

    thread = threading.Thread(target=write)
    thread.start()
    started.wait()
    got = [int(line.text) for line in follow_logs(str(tmp_path), alive=alive.is_set)]
    thread.join()
    assert got == list(range(500))


def test_following_goes_over_rotations(tmp_path):
    writer = LogWriter(str(tmp_path), max_bytes=2000, max_files=3)
    left = iter(range(300))

    def alive() -> bool:
        """Stands for the container: writes a few lines between two looks of the reader, fewer than rotate away."""
        for _line in range(10):
            number = next(left, None)
            if number is None:
                return False
            writer.feed("stdout", f"line {number}\n".encode(), NOW)
        return True

    got = [line.text for line in follow_logs(str(tmp_path), alive=alive)]
    assert got == [f"line {number}".encode() for number in range(300)]


def test_a_carriage_return_does_not_end_a_line(tmp_path):
    LogWriter(str(tmp_path)).feed("stdout", b"10%\r20%\r\ndone\n", NOW)
    assert texts(tmp_path) == texts(tmp_path, tail=2) == [b"10%\r20%\r", b"done"]


@pytest.mark.parametrize("tail", [0, 1, 150, 1000])
def test_a_followed_tail_over_several_files_goes_on_without_a_gap(tmp_path, tail):
    writer = LogWriter(str(tmp_path), max_bytes=4000)
    for number in range(200):
        writer.feed("stdout", f"{number}\n".encode(), NOW)
    available = len(texts(tmp_path))
    more = iter([b"200\n", b"201\n"])

    def alive() -> bool:
        line = next(more, None)
        if line:
            writer.feed("stdout", line, NOW)
        return line is not None

    got = [int(line.text) for line in follow_logs(str(tmp_path), alive=alive, tail=tail)]
    assert got == list(range(200 - min(tail, available), 202))


def test_following_starts_with_the_tail(tmp_path):
    writer = LogWriter(str(tmp_path))
    writer.feed("stdout", b"1\n2\n3\n", NOW)
    assert [line.text for line in follow_logs(str(tmp_path), alive=lambda: False, tail=2)] == [b"2", b"3"]


def test_a_reader_too_slow_misses_lines_but_never_order_or_the_end(tmp_path):
    writer = LogWriter(str(tmp_path), max_bytes=500, max_files=3)
    rounds = iter(range(3))

    def alive() -> bool:
        turn = next(rounds, None)
        if turn == 0:
            writer.feed("stdout", b"-1\n", NOW)
        if turn == 1:
            for number in range(200):
                writer.feed("stdout", f"{number}\n".encode(), NOW)
        return turn is not None

    got = [int(line.text) for line in follow_logs(str(tmp_path), alive=alive)]
    assert got == sorted(set(got))
    assert (got[0], got[-1]) == (-1, 199)
    assert len(got) < 201


def test_following_a_silent_container_ends_when_nobody_listens_any_more(tmp_path):
    LogWriter(str(tmp_path)).feed("stdout", b"1\n", NOW)
    stop = threading.Event()
    lines = follow_logs(str(tmp_path), alive=lambda: True, stop=stop)
    assert next(lines).text == b"1"
    threading.Timer(0.05, stop.set).start()
    assert list(lines) == []
