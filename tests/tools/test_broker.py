"""A broker is found in a fixed order; a way that doesn't work says why, in one line, and the next one is tried."""

import os
from pathlib import Path

import pytest

from jobtape.schemas.urls import without_password
from tests.brokers import SessionBroker
from tools.brokers import apt
from tools.brokers import find as broker
from tools.brokers.amqp import Server, UnreachableError, identity, probe, too_old
from tools.brokers.find import BrokerError, find_broker
from tools.processes.ports import free_port

NOBODY = f"amqp://guest:hidden@127.0.0.1:{free_port()}/"


def test_the_given_url_comes_first(broker_url: str, tmp_path: Path) -> None:
    said: list[str] = []
    found = find_broker(tmp_path, said.append, {"RABBITMQ_URL": broker_url})
    assert (found.kind, found.url) == ("url", broker_url)
    assert found.version == probe(broker_url).version
    assert len(said) == 1
    found.stop()
    assert probe(broker_url).product == "RabbitMQ", "somebody else's broker is not ours to stop"


def test_a_url_that_does_not_answer_is_said_and_the_local_one_taken(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "LOCAL_URL", broker_url)
    said: list[str] = []
    found = find_broker(tmp_path, said.append, {"RABBITMQ_URL": NOBODY})
    assert (found.kind, found.url) == ("local", broker_url)
    assert said[0].startswith("Broker, by url: no, amqp://guest@127.0.0.1:")
    assert said[0].endswith("nothing listens there")
    assert "hidden" not in "".join(said)


def test_a_private_node_with_its_data_below_the_data_folder(tmp_path: Path) -> None:
    said: list[str] = []
    found = find_broker(tmp_path, said.append, {"JOBTAPE_BROKER": "node"})
    try:
        assert (found.kind, found.identity) == ("node", "node")
        assert probe(found.url).version == found.version
        assert (tmp_path / "node" / "rabbitmq" / "data").is_dir()
        said.clear()
        with pytest.raises(BrokerError, match="another run"):
            find_broker(tmp_path, said.append, {"JOBTAPE_BROKER": "node"})
    finally:
        found.stop()
    with pytest.raises(UnreachableError):
        probe(found.url)


def test_where_nothing_is_possible_every_reason_is_told_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "LOCAL_URL", NOBODY)
    monkeypatch.setattr(broker, "find_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))  # neither docker nor apt-get
    monkeypatch.delenv("JOBTAPE_SETUP", raising=False)
    said: list[str] = []
    with pytest.raises(BrokerError) as refusal:
        find_broker(tmp_path, said.append, {})
    first, *reasons, last = str(refusal.value).splitlines()
    assert first == "No RabbitMQ broker was found and none could be started:"
    assert [reason.split(":")[0].strip() for reason in reasons] == ["url", "local", "docker", "node", "apt"]
    assert "RABBITMQ_URL is not set" in reasons[0]
    assert "docker is not installed" in reasons[2]
    assert "rabbitmq-server is not installed" in reasons[3]
    assert "no Debian or Ubuntu" in reasons[4]
    assert last == broker.WHAT_TO_DO
    assert len(said) == len(reasons)


def test_an_unknown_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="JOBTAPE_BROKER=cloud is unknown: use one of url, local, docker, node, apt"):
        find_broker(tmp_path, print, {"JOBTAPE_BROKER": "cloud"})


def test_packages_are_not_installed_against_the_users_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_SETUP", "never")
    said: list[str] = []
    with pytest.raises(apt.AptError, match="JOBTAPE_SETUP=never forbids"):
        apt.install("rabbitmq-server", said.append)
    assert said == []


def test_the_services_stay_off_for_the_time_of_an_installation_only(tmp_path: Path) -> None:
    policy = tmp_path / "made" / "policy-rc.d"
    with apt.temporary_file(policy, f"{apt.MARK}exit 101\n", 0o755):
        assert os.access(policy, os.X_OK)
    assert list(tmp_path.iterdir()) == []


def test_a_policy_of_the_machines_owner_stays_and_a_leftover_of_ours_goes(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("the owner's")
    with apt.temporary_file(policy, f"{apt.MARK}exit 101\n", 0o755):
        assert policy.read_text() == "the owner's"
    assert policy.read_text() == "the owner's"
    policy.write_text(f"{apt.MARK}exit 101\n")
    with apt.temporary_file(policy, f"{apt.MARK}exit 101\n", 0o755):
        assert policy.exists()
    assert not policy.exists()


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server("RabbitMQ", "3.10.0"), None),
        (Server("RabbitMQ", "4.3.0-rc.1"), None),
        (Server("RabbitMQ", "3.9.27"), "it is RabbitMQ 3.9.27, and 3.10 is the oldest that will do"),
        (Server("LavinMQ", "2.1.0"), "it is LavinMQ and not RabbitMQ"),
    ],
)
def test_servers_that_lack_what_is_needed_are_refused(server: Server, reason: str | None) -> None:
    assert too_old(server) == reason


def test_refusals_of_a_real_broker_are_told_apart(broker: SessionBroker) -> None:
    wrong_password = broker.url.replace("@", "wrong@")
    with pytest.raises(UnreachableError, match="refuses this user and password") as refusal:
        probe(wrong_password)
    assert "wrong" not in str(refusal.value)
    with pytest.raises(UnreachableError, match="refuses this virtual host"):
        probe(f"{broker.url}no-such-vhost")


@pytest.mark.parametrize("url", ["http://host/", "amqp://", "amqp://host:port/", "rabbit"])
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(UnreachableError, match="is no AMQP URL: write amqp://user:password@host:5672/"):
        probe(url)


def test_an_identity_is_the_same_for_one_broker_and_differs_for_two() -> None:
    assert identity("amqp://guest:one@localhost") == identity("amqp://guest:two@localhost:5672/%2F")
    others = [
        "amqp://guest@localhost:5673",
        "amqp://guest@elsewhere",
        "amqp://me@localhost",
        "amqp://guest@localhost/v",
    ]
    assert len({identity(url) for url in ["amqp://guest@localhost", *others]}) == 5


def test_a_shown_url_has_no_password() -> None:
    assert without_password("amqp://me:se%40cret@host:5672/v") == "amqp://me@host:5672/v"
    assert without_password("amqp://host/") == "amqp://host/"
