import pytest

from harness.stub_daemon import Daemon


@pytest.fixture
def daemon(tmp_path):
    """Starts one that answers as it is told, at the socket that the programs are given."""
    started = []

    def start(*answers):
        started.append(Daemon(str(tmp_path / "s.sock"), *answers))
        return started[-1]

    yield start
    for each in started:
        each.close()
