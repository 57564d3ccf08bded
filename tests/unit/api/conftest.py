import pytest

from unit.api.doubles import ServerThread


@pytest.fixture
def api(tmp_path):
    with ServerThread(tmp_path / "run" / "s.sock") as server:
        yield server
