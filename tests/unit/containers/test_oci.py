"""The OCI configuration: what a container gets, and above all what it does not get."""

import json

import pytest

from sealane.containers.oci import (
    HostFacts,
    Root,
    build_config,
    build_process,
    hosts_file,
    resolv_file,
)
from sealane.containers.spec import Bind, ContainerSpec, Dns, Limits, Tmpfs
from sealane.containers.users import User

ROOT_USER = User(0, 0, (), "/root")
FACTS = HostFacts(
    in_user_namespace=False,
    cgroups="hybrid",
    cgroup_path="/sealane/t",
    swap_limit=True,
    seccomp=True,
    machine="x86_64",
)
ROOTLESS = HostFacts(
    in_user_namespace=True,
    cgroups="hybrid",
    cgroup_path="",
    swap_limit=False,
    seccomp=False,
    machine="x86_64",
)
FOLDER = Root(path="/srv/root", read_only=False, etc={"/etc/hosts": "/run/x/hosts"})


def spec(**changes):
    return ContainerSpec(**({"id": "web1", "name": "web", "command": ("sleep", "1")} | changes))


def config(facts=FACTS, root=FOLDER, user=ROOT_USER, **changes):
    return build_config(spec(**changes), user, root, facts)


def mount_of(built, target):
    return next(mount for mount in built["mounts"] if mount["destination"] == target)


def test_the_configuration_is_json():
    assert json.loads(json.dumps(config()))["ociVersion"] == "1.0.2"


def test_namespaces_are_all_its_own_except_the_network_that_is_given():
    kinds = {entry["type"]: entry.get("path") for entry in config(netns="/run/n")["linux"]["namespaces"]}
    assert kinds == {
        "pid": None,
        "ipc": None,
        "uts": None,
        "mount": None,
        "cgroup": None,
        "network": "/run/n",
    }


def test_without_a_sandbox_the_container_shares_the_hosts_network():
    assert "network" not in {entry["type"] for entry in config()["linux"]["namespaces"]}


def test_the_capabilities_are_dockers_and_nothing_is_inheritable():
    capabilities = config()["process"]["capabilities"]
    assert set(capabilities) == {"bounding", "effective", "permitted"}
    assert "CAP_CHOWN" in capabilities["bounding"]
    assert "CAP_SYS_ADMIN" not in capabilities["bounding"]
    assert "CAP_NET_ADMIN" not in capabilities["bounding"]


def test_no_new_privileges_is_always_set():
    assert config()["process"]["noNewPrivileges"] is True


def test_kernel_files_are_masked_and_read_only():
    linux = config()["linux"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/sys/firmware" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert "ro" in mount_of(config(), "/sys")["options"]


def test_all_devices_are_denied_and_the_runtime_adds_the_harmless_ones():
    assert config()["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_limits_become_kernel_units():
    resources = config(limits=Limits(memory_bytes=64 << 20, cpus=1.5, pids=9))["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    assert resources["cpu"] == {"period": 100_000, "quota": 150_000}
    assert resources["pids"] == {"limit": 9}


def test_swap_is_not_written_where_the_kernel_does_not_account_for_it():
    facts = HostFacts(
        in_user_namespace=False,
        cgroups="v1",
        cgroup_path="/sealane/t",
        swap_limit=False,
        seccomp=True,
        machine="x86_64",
    )
    assert config(facts, limits=Limits(memory_bytes=64 << 20))["linux"]["resources"]["memory"] == {
        "limit": 64 << 20
    }


def test_the_group_lies_below_the_instance():
    assert config()["linux"]["cgroupsPath"] == "/sealane/t/web1"


def test_without_rights_on_control_groups_none_is_named_nor_shown():
    built = config(ROOTLESS)
    assert "cgroupsPath" not in built["linux"]
    assert "resources" not in built["linux"]
    assert "/sys/fs/cgroup" not in {mount["destination"] for mount in built["mounts"]}


def test_a_user_namespace_gets_no_gid_that_is_not_mapped():
    assert "gid=5" in mount_of(config(), "/dev/pts")["options"]
    assert "gid=5" not in mount_of(config(ROOTLESS), "/dev/pts")["options"]


def test_seccomp_is_left_out_where_there_is_none():
    assert "seccomp" in config()["linux"]
    assert "seccomp" not in config(ROOTLESS)["linux"]


def test_read_only_binds_are_read_only_all_the_way_down():
    built = config(mounts=(Bind(source="/a", target="/b", read_only=True), Bind(source="/c", target="/d")))
    assert mount_of(built, "/b")["options"] == ["rbind", "rprivate", "rro", "rnodev"]
    assert mount_of(built, "/d")["options"] == ["rbind", "rprivate", "rw", "rnodev"]


def test_parents_are_mounted_before_what_lies_in_them():
    built = config(mounts=(Tmpfs(target="/a/b/c"), Tmpfs(target="/a"), Tmpfs(target="/a/b")))
    assert [mount["destination"] for mount in built["mounts"]][-3:] == ["/a", "/a/b", "/a/b/c"]


def test_the_roots_own_mounts_come_before_the_kernels():
    root = Root(path="/r", read_only=True, mounts=({"destination": "/usr"},))
    assert config(root=root)["mounts"][0] == {"destination": "/usr"}


def test_a_users_mount_on_etc_hosts_replaces_ours():
    built = config(mounts=(Bind(source="/my/hosts", target="/etc/hosts"),))
    sources = [mount["source"] for mount in built["mounts"] if mount["destination"] == "/etc/hosts"]
    assert sources == ["/my/hosts"]


def test_a_read_only_file_is_bound_without_recursion():
    root = Root(path="/r", read_only=False, files=frozenset({"/b"}))
    built = config(root=root, mounts=(Bind(source="/a", target="/b", read_only=True),))
    assert mount_of(built, "/b")["options"] == ["bind", "rprivate", "ro"]


@pytest.mark.parametrize(("read_only", "option"), [(True, "ro"), (False, "rw")])
def test_etc_files_may_be_edited_unless_the_root_is_read_only(read_only, option):
    assert option in mount_of(config(rootfs="/srv", read_only=read_only), "/etc/hosts")["options"]


def test_a_tmpfs_is_bounded():
    options = mount_of(config(mounts=(Tmpfs(target="/x", size_bytes=4096, mode=0o700),)), "/x")["options"]
    assert {"size=4096", "mode=700", "nosuid", "nodev"} <= set(options)


def test_an_init_program_runs_the_command():
    built = config(root=Root(path="/r", read_only=False, init="/usr/bin/tini"))
    assert built["process"]["args"] == ["/dev/init", "--", "sleep", "1"]
    assert mount_of(built, "/dev/init")["source"] == "/usr/bin/tini"


def test_the_environment_has_defaults_that_the_spec_overrides():
    env = dict(word.split("=", 1) for word in config(env={"HOME": "/x", "A": "b=c"})["process"]["env"])
    assert env["HOME"] == "/x"
    assert env["A"] == "b=c"
    assert env["HOSTNAME"] == "web1"
    assert "/usr/bin" in env["PATH"]


def test_exec_inherits_what_it_does_not_override():
    user = User(5, 6, (7,), "/home/u")
    process = build_process(
        spec(env={"A": "1", "B": "2"}), user, command=("x",), env={"B": "3"}, working_dir="/w"
    )
    assert process["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    assert {"A=1", "B=3", "HOME=/home/u"} <= set(process["env"])
    assert process["cwd"] == "/w"
    assert process["terminal"] is False


def test_hosts_has_loopback_the_containers_name_and_the_extra_lines():
    text = hosts_file("web", ("10.0.0.2 db",)).decode()
    assert "127.0.0.1\tlocalhost\n" in text
    assert "127.0.1.1\tweb\n" in text
    assert text.endswith("10.0.0.2 db\n")


def test_the_engines_address_for_the_container_replaces_the_loopback_one():
    assert "127.0.1.1" not in hosts_file("web", ("10.0.0.2 web",)).decode()


def test_resolv_conf_has_only_what_was_given():
    dns = Dns(nameservers=("10.0.0.1", "fd00::1"), search=("a.b", "c"), options=("ndots:0", "edns0"))
    text = "nameserver 10.0.0.1\nnameserver fd00::1\nsearch a.b c\noptions ndots:0 edns0\n"
    assert resolv_file(dns).decode() == text
    assert resolv_file(Dns()) == b""
