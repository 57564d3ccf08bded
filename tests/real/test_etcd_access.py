"""Users, tokens and certificates of a real etcd."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.etcd import Authority, Cluster, Users, why_not
from harness.etcd_seen import Seen
from harness.netns import eventually
from harness.patience import pause
from sealane.etcd.client import Client
from sealane.etcd.errors import DeniedError, UnavailableError
from sealane.etcd.records import Applied, Put, Tls, is_absent

pytestmark = [pytest.mark.real, pytest.mark.kernel]

if why_not():
    pytest.skip(why_not(), allow_module_level=True)

TOKEN_TTL_S = 2


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """User `h1` reads all below /s/ and writes below /s/h1/; tokens live two seconds after their last use."""
    with Cluster(tmp_path_factory.mktemp("etcd"), 1, "--auth-token-ttl", str(TOKEN_TTL_S)) as cluster:
        users = Users(cluster.members[0])
        users.add("h1", "secret", reads=b"/s/", writes=b"/s/h1/")
        users.add("h2", "secret", reads=b"/s/", writes=b"/s/h2/")
        users.enable()
        yield cluster


@pytest.fixture
def client(guarded: Cluster) -> Iterator[Client]:
    with Client(guarded.urls, user="h1", password="secret") as client:
        yield client


def put(client: Client, key: bytes, value: bytes) -> int:
    return client.transact([], [Put(key, value)]).result().revision


class TestUsers:
    def test_a_host_writes_below_its_own_prefix_only(self, client: Client) -> None:
        put(client, b"/s/h1/a", b"1")
        for key in (b"/s/h2/a", b"/s/a", b"/other"):
            with pytest.raises(DeniedError, match="permission denied"):
                put(client, key, b"")

    def test_a_host_reads_and_compares_what_others_wrote(self, guarded: Cluster, client: Client) -> None:
        with Client(guarded.urls, user="h2", password="secret") as other:
            put(other, b"/s/h2/a", b"2")
        assert client.get_prefix(b"/s/h2/").result().records[0].value == b"2"
        refused = client.transact([is_absent(b"/s/h2/a")], [Put(b"/s/h1/b", b"")]).result()
        assert not isinstance(refused, Applied)

    def test_a_watch_outside_the_permissions_is_denied(self, client: Client) -> None:
        seen = Seen()
        client.watch(b"/other/", 1, seen.listener())
        eventually(lambda: seen.ends, what="the end")
        assert isinstance(seen.ends[0], DeniedError)

    @pytest.mark.parametrize(("user", "password"), [("h1", "wrong"), ("nobody", "secret"), ("", "")])
    def test_wrong_credentials_are_denied(self, guarded: Cluster, user: str, password: str) -> None:
        with Client(guarded.urls, user=user, password=password) as client:
            assert isinstance(client.get([b"/s/a"]).exception(), DeniedError)
            seen = Seen()
            client.watch(b"/s/", 1, seen.listener())
            eventually(lambda: seen.ends, what="the end")
            assert isinstance(seen.ends[0], DeniedError)

    def test_a_cluster_without_users_is_not_trusted_by_a_client_with_one(self, tmp_path: Path) -> None:
        with Cluster(tmp_path) as cluster, Client(cluster.urls, user="h1", password="secret") as client:
            error = client.get([b"/s/a"]).exception()
            assert isinstance(error, DeniedError)
            assert "not enabled" in str(error)


class TestTokens:
    def test_many_calls_share_one_authentication(self, client: Client) -> None:
        """It costs etcd 200 ms of bcrypt."""
        calls = [client.get([b"/s/a"]) for _ in range(20)]
        for call in calls:
            call.result()
        assert client.authentications == 1

    def test_an_expired_token_is_renewed_without_the_caller_noticing(self, client: Client) -> None:
        put(client, b"/s/h1/a", b"1")
        pause(2 * TOKEN_TTL_S)  # Checked each second by etcd.
        calls = [client.transact([], [Put(b"/s/h1/%d" % number, b"")]) for number in range(5)]
        for call in calls:
            call.result()
        assert client.authentications == 2, "the token did not expire, or was renewed more than once"

    def test_a_running_watch_outlives_its_token_and_a_new_one_renews_it(
        self, guarded: Cluster, client: Client
    ) -> None:
        seen, late = Seen(), Seen()
        start = put(client, b"/s/h1/w", b"1")
        client.watch(b"/s/h1/w", start, seen.listener())
        eventually(lambda: seen.has(b"1"), what="the first event")
        pause(2 * TOKEN_TTL_S)
        client.watch(b"/s/h1/w", start, late.listener())
        eventually(lambda: late.has(b"1"), what="the new watch's first event")
        put(client, b"/s/h1/w", b"2")
        eventually(lambda: seen.has(b"2") and late.has(b"2"), what="the second event at both")
        assert seen.values() == late.values() == [b"1", b"2"]
        assert seen.ends == late.ends == seen.broken == []
        assert late.broken, "the token had not expired"

    def test_a_restarted_member_knows_no_tokens_and_watches_go_on(
        self, guarded: Cluster, client: Client
    ) -> None:
        [member] = guarded.members
        seen = Seen()
        client.watch(b"/s/h1/w", put(client, b"/s/h1/w", b"3"), seen.listener())
        lease = client.grant(30).result()
        lost: list[Exception] = []
        client.keep_alive(lease, lost.append)
        eventually(lambda: seen.has(b"3"), what="the first event")
        member.kill()
        member.start()
        eventually(member.accepts, what="etcd accepts")
        put(client, b"/s/h1/w", b"4")
        eventually(lambda: seen.has(b"4"), what="the second event")
        assert seen.values() == [b"3", b"4"]
        assert seen.ends == lost == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("etcd"), 3, tls=authority) as cluster:
        yield cluster


class TestTls:
    def test_a_client_with_a_certificate_is_served_by_all_members(
        self, authority: Authority, secure: Cluster
    ) -> None:
        certificate, key = authority.issue("h1")
        tls = Tls(authority.ca_file, certificate, key, Authority.SERVER_NAME)
        with Client(secure.urls, tls=tls) as client:
            assert isinstance(client.transact([], [Put(b"/a", b"1")], deadline_s=60).result(), Applied)
            members: set[int] = set()

            def all_answered() -> bool:
                members.add(client.status().result().member_id)
                return len(members) == 3

            eventually(all_answered, what="each member has answered")

    def test_one_member_is_checked_by_its_address(self, authority: Authority, secure: Cluster) -> None:
        certificate, key = authority.issue("h1")
        with Client(secure.urls[:1], tls=Tls(authority.ca_file, certificate, key)) as client:
            assert client.status(deadline_s=60).result().version

    def test_without_a_certificate_nothing_is_served(self, authority: Authority, secure: Cluster) -> None:
        with Client(secure.urls[:1], tls=Tls(authority.ca_file)) as client:
            assert isinstance(client.get([b"/a"], deadline_s=1.0).exception(), UnavailableError)

    def test_a_member_with_another_name_is_not_trusted(self, authority: Authority, secure: Cluster) -> None:
        certificate, key = authority.issue("h1")
        tls = Tls(authority.ca_file, certificate, key, "other.test")
        with Client(secure.urls, tls=tls) as client:
            assert isinstance(client.get([b"/a"], deadline_s=1.0).exception(), UnavailableError)

    def test_a_member_of_another_authority_is_not_trusted(
        self, authority: Authority, secure: Cluster, tmp_path: Path
    ) -> None:
        certificate, key = authority.issue("h1")
        stranger = Authority(tmp_path / "stranger")
        with Client(secure.urls[:1], tls=Tls(stranger.ca_file, certificate, key)) as client:
            assert isinstance(client.get([b"/a"], deadline_s=1.0).exception(), UnavailableError)

    def test_a_certificates_common_name_is_the_user(self, authority: Authority, tmp_path: Path) -> None:
        certificate, key = authority.issue("h1")
        root_certificate, root_key = authority.issue("root")
        with Cluster(tmp_path, 1, tls=authority) as cluster:
            users = Users(cluster.members[0], authority.context(root_certificate, root_key))
            users.add("h1", "secret", reads=b"/s/", writes=b"/s/h1/")
            users.enable()
            with Client(cluster.urls, tls=Tls(authority.ca_file, certificate, key)) as client:
                put(client, b"/s/h1/a", b"1")
                with pytest.raises(DeniedError):
                    put(client, b"/s/h2/a", b"1")
                assert client.authentications == 0
