"""What of the host's /etc is copied for a container, and what never is."""

import os
import socket

import pytest

from sealane.containers import publicetc
from sealane.containers.publicetc import copy_etc


@pytest.fixture
def etc(tmp_path):
    made = tmp_path / "etc"
    made.mkdir()
    return made


def write(path, text="text", mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def copied(etc, **changes):
    target = etc.parent / "copy"
    copy_etc(str(etc), str(target), leaving_out=changes.get("leaving_out", ()))
    return {str(path.relative_to(target)) for path in target.rglob("*") if not path.is_dir()}


def test_what_is_listed_is_copied_whole(etc):
    for name in (
        "passwd",
        "ssl/certs/ca.crt",
        "alternatives/awk",
        "python3.11/sitecustomize.py",
        "java-17-openjdk/x/y",
    ):
        write(etc / name, name)
    assert copied(etc) == {
        "passwd", "ssl/certs/ca.crt", "alternatives/awk", "python3.11/sitecustomize.py", "java-17-openjdk/x/y",
    }  # fmt: skip
    assert (etc.parent / "copy" / "ssl/certs/ca.crt").read_text() == "ssl/certs/ca.crt"


@pytest.mark.parametrize(
    "name",
    [
        "shadow",
        "gshadow",
        "sudoers",
        "krb5.keytab",
        "ssl/private/key",
        "ssh/ssh_host_rsa_key",
        "docker/key.json",
        "passwdx",
    ],
)
def test_what_is_not_listed_is_not(etc, name):
    write(etc / name)
    assert copied(etc) == set()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o660])
def test_what_not_everybody_may_read_is_not(etc, mode):
    write(etc / "profile.d" / "tokens.sh", mode=mode)
    write(etc / "passwd", mode=mode)
    assert copied(etc) == set()


def test_folders_that_not_everybody_may_enter_are_not(etc):
    write(etc / "pki" / "ca-trust" / "own" / "x")
    (etc / "pki" / "ca-trust" / "own").chmod(0o750)
    assert copied(etc) == set()


def test_links_are_links_wherever_they_lead(etc):
    write(etc.parent / "secret", mode=0o600)
    (etc / "localtime").symlink_to(etc.parent / "secret")
    assert copied(etc) == {"localtime"}
    assert os.readlink(etc.parent / "copy" / "localtime") == str(etc.parent / "secret")


def test_what_is_no_file_is_left_out_and_nobody_waits_for_it(etc):
    (etc / "profile.d").mkdir()
    os.mkfifo(etc / "profile.d" / "fifo", 0o644)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(etc / "profile.d" / "socket"))
        assert copied(etc) == set()


def test_a_copy_is_made_anew(etc):
    write(etc / "passwd", "old")
    copied(etc)
    write(etc / "group")
    (etc / "passwd").unlink()
    assert copied(etc) == {"group"}


def test_names_of_the_callers_own_are_left_to_it(etc):
    write(etc / "passwd")
    write(etc / "group")
    assert copied(etc, leaving_out=("passwd",)) == {"group"}


def test_rights_are_those_of_everybody(etc):
    write(etc / "profile.d" / "run.sh", mode=0o4755)
    write(etc / "passwd", mode=0o666)
    copied(etc)
    modes = {
        name: (etc.parent / "copy" / name).stat().st_mode & 0o7777 for name in ("profile.d/run.sh", "passwd")
    }
    assert modes == {"profile.d/run.sh": 0o755, "passwd": 0o644}


@pytest.mark.parametrize(("files", "found"), [(3, 3), (4, 3)])
def test_there_is_a_bound(etc, monkeypatch, files, found):
    monkeypatch.setattr(publicetc, "MAX_ENTRIES", 3)
    for number in range(files):
        write(etc / "profile.d" / f"{number}.sh")
    assert len(copied(etc)) == found


@pytest.mark.parametrize(("size", "found"), [(10, {"passwd"}), (11, set())])
def test_a_file_that_is_too_large_is_left_out(etc, monkeypatch, size, found):
    monkeypatch.setattr(publicetc, "MAX_FILE_BYTES", 10)
    write(etc / "passwd", "x" * size)
    assert copied(etc) == found
