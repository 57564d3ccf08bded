"""Health checks that cannot be started."""

import os

import pytest

from sealane.containers import launch, probe, process
from sealane.containers.plan import HealthPlan, Paths
from sealane.containers.probe import Probe


@pytest.fixture
def plan():
    return HealthPlan(interval_s=1.0, timeout_s=5.0, retries=2, start_period_s=0.0)


class TestAProbeThatCannotBeStarted:
    def test_counts_as_failed_and_nothing_is_left_open(self, plan, tmp_path):
        check = Probe(plan, ["/nonexistent/runtime", "exec"], str(tmp_path / "pid"), 0.0)
        before = len(os.listdir("/proc/self/fd"))
        check.tick(1.0)
        assert check.pid == 0
        assert check.deadline == 2.0
        assert check.report["failing_streak"] == 1
        (result,) = check.report["log"]
        assert result["exit_code"] == -1
        assert "/nonexistent/runtime" in result["output"]
        assert len(os.listdir("/proc/self/fd")) == before
        check.tick(2.0)
        assert check.report["status"] == "unhealthy"

    def test_is_tried_again(self, plan, tmp_path):
        check = Probe(plan, ["/nonexistent/runtime"], str(tmp_path / "pid"), 0.0)
        check.tick(1.0)
        check._command = ["/bin/true"]
        check.tick(2.0)
        pid = check.pid
        assert pid
        _, status = os.waitpid(pid, 0)
        check.exited(os.waitstatus_to_exitcode(status), 2.5)
        assert check.report["status"] == "healthy"

    def test_without_descriptors_it_is_the_same(self, plan, tmp_path, monkeypatch):
        def full():
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(probe.os, "pipe", full)
        check = Probe(plan, ["/bin/true"], str(tmp_path / "pid"), 0.0)
        check.tick(1.0)
        assert "Too many open files" in check.report["log"][0]["output"]


class TestAShimThatCannotBeStarted:
    @pytest.fixture
    def paths(self, tmp_path):
        found = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
        os.makedirs(found.run_folder)
        return found

    @pytest.mark.parametrize("what", ["pipe", "Popen"])
    def test_leaves_nothing_open_and_no_lock(self, paths, what, monkeypatch):
        def full(*_, **__):
            raise OSError(24, "Too many open files")

        before = len(os.listdir("/proc/self/fd"))
        where = launch.os if what == "pipe" else launch.subprocess
        with monkeypatch.context() as patched:
            patched.setattr(where, what, full)
            with pytest.raises(OSError, match="Too many"):
                launch.launch_shim("/usr/bin/python3", paths)
        assert len(os.listdir("/proc/self/fd")) == before
        assert not process.is_locked(paths.lock)
