"""All parts connect to a broker that asks for a certificate."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.brokers import ensure_server
from tests.cli.installation import installation_in
from tests.namespaces import environment_for, some_topology
from tools.brokers.node import PrivateNode
from tools.processes.ports import free_port


def write_certificates(folder: Path) -> None:
    """Write an authority, ``ca.pem``, and certificates of it for the broker and for a client, each with its key."""
    now = datetime.now(UTC)
    issuer, authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")]), None
    for name in ("ca", "broker", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        authority = authority or key
        made = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(authority, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        form = serialization.PrivateFormat.PKCS8
        private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(private)


@pytest.fixture
def tls_node(tmp_path: Path) -> Iterator[tuple[PrivateNode, int, int]]:
    """A node, and its ports of AMQP and of the management API with TLS. AMQP asks for a certificate."""
    ensure_server()
    write_certificates(tmp_path)
    amqps, https = free_port(), free_port()
    files = {"cacertfile": "ca.pem", "certfile": "broker.pem", "keyfile": "broker.key"}
    config = [
        f"listeners.ssl.local = 127.0.0.1:{amqps}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
        "management.ssl.ip = 127.0.0.1",
        f"management.ssl.port = {https}",
    ]
    for part in ("ssl_options", "management.ssl"):
        config += [f"{part}.{name} = {tmp_path / file}" for name, file in files.items()]
    started = PrivateNode(tmp_path / "node", config, plugins=["rabbitmq_management"])
    started.start()
    yield started, amqps, https
    started.stop()


@pytest.mark.timeout(180)
def test_parts_and_commands_use_a_client_certificate(tmp_path: Path, tls_node: tuple[PrivateNode, int, int]) -> None:
    node, amqps, https = tls_node
    plain = urlsplit(node.url)
    bare = f"amqps://{plain.username}:{plain.password}@127.0.0.1:{amqps}/?cafile={tmp_path / 'ca.pem'}"
    whole = f"{bare}&certfile={tmp_path / 'client.pem'}&keyfile={tmp_path / 'client.key'}"
    folder = tmp_path / "site"
    folder.mkdir()
    made = installation_in(folder, **environment_for(whole, some_topology("default", "gates")))
    made.env["JOBTAPE_MANAGEMENT_URL"] = f"https://127.0.0.1:{https}"
    try:
        refused = made.run("init", RABBITMQ_URL=bare)
        assert refused.returncode == 1
        assert "certfile" in refused.stderr and refused.stderr.count("\n") == 1
        made.up()
        assert made.submit("add", {"x": 1, "y": 2}, "--wait") == "3"
        examined = made.run("doctor", "--json")
        assert examined.returncode == 0, examined.stdout + examined.stderr
        assert "no policy limits our queues" in [each["what"] for each in json.loads(examined.stdout)["findings"]]
    finally:
        made.close()
