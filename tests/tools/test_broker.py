"""Tests of finding a broker: the order of the ways, and the reason of each that does not work."""

import subprocess
from pathlib import Path

import pytest

from tests.brokers import SessionBroker
from tools.brokers import apt, find
from tools.brokers.amqp import Server, UnreachableError, identity, probe, too_old
from tools.brokers.find import BrokerError, find_broker

NOBODY = "amqp://guest:hidden@127.0.0.1:1/"
"""Port 1, which no process is given by chance: a free one may be taken by another test before it is used."""


def test_url_of_the_environment_comes_first(broker_url: str, tmp_path: Path) -> None:
    printed: list[str] = []
    found = find_broker(tmp_path, printed.append, {"RABBITMQ_URL": broker_url})
    assert (found.kind, found.url) == ("url", broker_url)
    assert found.version == probe(broker_url).version
    assert len(printed) == 1
    found.stop()
    assert probe(broker_url).product == "RabbitMQ", "stop() must not stop a broker that we did not start"


def test_url_that_does_not_answer_is_reported_and_local_broker_used(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "LOCAL_URL", broker_url)
    printed: list[str] = []
    found = find_broker(tmp_path, printed.append, {"RABBITMQ_URL": NOBODY})
    assert (found.kind, found.url) == ("local", broker_url)
    assert printed[0].startswith("Broker, by url: no, nothing listens at amqp://guest@127.0.0.1:")
    assert "hidden" not in "".join(printed)


def test_private_node_keeps_its_data_below_the_data_folder(tmp_path: Path) -> None:
    printed: list[str] = []
    found = find_broker(tmp_path, printed.append, {"JOBTAPE_BROKER": "node"})
    try:
        assert (found.kind, found.identity) == ("node", "node")
        assert probe(found.url).version == found.version
        assert (tmp_path / "node" / "rabbitmq" / "data").is_dir()
        printed.clear()
        with pytest.raises(BrokerError, match="another run"):
            find_broker(tmp_path, printed.append, {"JOBTAPE_BROKER": "node"})
    finally:
        found.stop()
    with pytest.raises(UnreachableError):
        probe(found.url)


def test_no_possible_way_reports_every_reason_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "LOCAL_URL", NOBODY)
    monkeypatch.setattr(find, "find_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))  # neither docker nor apt-get
    monkeypatch.delenv("JOBTAPE_SETUP", raising=False)
    printed: list[str] = []
    with pytest.raises(BrokerError) as refusal:
        find_broker(tmp_path, printed.append, {})
    first, *reasons, last = str(refusal.value).splitlines()
    assert first == "No RabbitMQ broker was found and none could be started:"
    assert [reason.split(":")[0].strip() for reason in reasons] == ["url", "local", "docker", "node", "apt"]
    assert "RABBITMQ_URL is not set" in reasons[0]
    assert "docker is not installed" in reasons[2]
    assert "rabbitmq-server is not installed" in reasons[3]
    assert "no Debian or Ubuntu" in reasons[4]
    assert last == find.WHAT_TO_DO
    assert len(printed) == len(reasons)


def test_unknown_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="JOBTAPE_BROKER=cloud is unknown: use one of url, local, docker, node, apt"):
        find_broker(tmp_path, print, {"JOBTAPE_BROKER": "cloud"})


def test_package_is_not_installed_if_the_user_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_SETUP", "never")
    printed: list[str] = []
    with pytest.raises(apt.AptError, match="JOBTAPE_SETUP=never forbids"):
        apt.install("rabbitmq-server", printed.append)
    assert printed == []


def test_servers_are_off_only_during_an_installation(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    # As an installation that was killed leaves it.
    policy.write_text(f"{apt.MARK}exit 0\n")
    with apt.servers_off(policy):
        assert subprocess.run([policy], check=False).returncode == 101
    assert not policy.exists()


def test_policy_of_the_machines_owner_stays(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("the owner's")
    with apt.servers_off(policy):
        assert policy.read_text() == "the owner's"
    assert policy.read_text() == "the owner's"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server("RabbitMQ", "3.10.0"), None),
        (Server("RabbitMQ", "4.3.0-rc.1"), None),
        (Server("RabbitMQ", "3.9.27"), "it is RabbitMQ 3.9.27, but Jobtape needs 3.10 or later"),
        (Server("LavinMQ", "2.1.0"), "it is LavinMQ and not RabbitMQ"),
    ],
)
def test_server_without_needed_features_is_refused(server: Server, reason: str | None) -> None:
    assert too_old(server) == reason


def test_probe_reports_wrong_password_and_vhost(broker: SessionBroker) -> None:
    wrong_password = broker.url.replace("@", "4711@")
    with pytest.raises(UnreachableError, match="or its password is wrong") as refusal:
        probe(wrong_password)
    assert "4711" not in str(refusal.value)
    with pytest.raises(UnreachableError, match="the vhost 'no-such-vhost' does not exist"):
        probe(f"{broker.url}no-such-vhost")


@pytest.mark.parametrize("url", ["http://host/", "amqp://", "amqp://host:port/", "rabbit"])
def test_probe_refuses_what_is_no_amqp_url(url: str) -> None:
    with pytest.raises(UnreachableError, match="is no AMQP URL: write amqp://user:password@host:5672/"):
        probe(url)


def test_identity_is_equal_for_one_broker_and_differs_for_two() -> None:
    assert identity("amqp://guest:one@localhost") == identity("amqp://guest:two@localhost:5672/%2F")
    others = [
        "amqp://guest@localhost:5673",
        "amqp://guest@elsewhere",
        "amqp://me@localhost",
        "amqp://guest@localhost/v",
    ]
    assert len({identity(url) for url in ["amqp://guest@localhost", *others]}) == 5
