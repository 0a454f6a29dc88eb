"""One request, against a real server on this machine."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier

from jobtape.schemas.webhooks.delivery import DELAYS, retry_delay
from jobtape.webhooks.secrets import new_secret, secret_bytes, signature
from jobtape.webhooks.sender import NotSent, Sender, retry_after
from tests.webhooks.receiver import receiving

HERE = [ip_network("127.0.0.0/8")]


def names(**addresses: str) -> "Names":
    return Names({name.replace("_", "."): [address] for name, address in addresses.items()})


class Names:
    """Look-ups of names; each takes the next of a name's addresses, and the last one stays."""

    def __init__(self, addresses: dict[str, list[str]]) -> None:
        self._addresses = addresses
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self._addresses:
            raise OSError("no such name")
        found = self._addresses[host]
        return [found.pop(0) if len(found) > 1 else found[0]]


@pytest.mark.anyio
async def test_request_goes_to_the_address_that_was_checked() -> None:
    resolver = Names({"hook.test": ["127.0.0.1", "10.0.0.1"]})
    async with receiving() as receiver:
        sender = Sender(HERE, resolver=resolver)
        answer = await sender.post(receiver.url("/204", "hook.test"), {"webhook-id": "1"}, b"{}")
        assert answer.status == 204
        assert resolver.asked == ["hook.test"]  # once: nothing else looks the name up
        request = receiver.requests[0]
        assert request.headers["host"] == f"hook.test:{receiver.port}"
        assert (request.headers["webhook-id"], request.body) == ("1", b"{}")
        # The next attempt looks it up again, and finds another address.
        with pytest.raises(NotSent, match=r"10\.0\.0\.1, which is not public"):
            await sender.post(receiver.url("/204", "hook.test"), {}, b"{}")
        with pytest.raises(NotSent, match="cannot be looked up"):
            await sender.post(receiver.url("/204", "other.test"), {}, b"{}")
        assert receiver.connections == 1


@pytest.mark.anyio
async def test_faulty_endpoints_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Proxies of the environment would get the request, and would look the name up themselves.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9/")
    async with receiving() as receiver:
        sender = Sender(HERE, timeout=5)
        assert (await sender.post(receiver.url("/redirect"), {}, b"")).status == 302
        assert receiver.at("/204") == []
        assert (await sender.post(receiver.url("/endless"), {}, b"")).status == 200
        receiver.answers["/later"] = lambda: "HTTP/1.1 429 Slow\r\nRetry-After: 120"
        assert (await sender.post(receiver.url("/later"), {}, b"")).retry_after == 120
        with pytest.raises(NotSent, match=r"no answer within 0\.2 s"):
            await Sender(HERE, timeout=0.2).post(receiver.url("/hang"), {}, b"")
        url = receiver.url("/204")
        with pytest.raises(NotSent, match="is not public"):
            await Sender([]).post(url, {}, b"")
    with pytest.raises(NotSent, match="ConnectError"):
        await sender.post(url, {}, b"")


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_private_address_is_not_followed(status: int) -> None:
    """The service behind the firewall is at an address that is allowed here, so only the redirect can keep us away."""
    async with receiving() as receiver, receiving() as private:
        receiver.answers["/moved"] = lambda: f"HTTP/1.1 {status} Moved\r\nLocation: {private.url('/204')}"
        sender = Sender(HERE, resolver=names(hook_test="127.0.0.1"), timeout=5)
        answer = await sender.post(receiver.url("/moved", "hook.test"), {"webhook-id": "1"}, b"{}")
        assert answer.status == status
        assert (receiver.connections, private.connections) == (1, 0)
        # As an endpoint of its own, it would have been reached.
        assert (await sender.post(private.url("/204", "hook.test"), {}, b"{}")).status == 204
        assert private.connections == 1


@pytest.mark.anyio
async def test_certificate_is_that_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(_certificate(tmp_path, "hook.test")))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "hook.test.pem")
    asked: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with receiving(tls) as receiver:
        sender = Sender(HERE, resolver=names(hook_test="127.0.0.1", other_test="127.0.0.1"))
        assert (await sender.post(receiver.url("/204", "hook.test", "https"), {}, b"")).status == 204
        with pytest.raises(NotSent, match="CERTIFICATE_VERIFY_FAILED"):
            await sender.post(receiver.url("/204", "other.test", "https"), {}, b"")
        assert asked == ["hook.test", "other.test"]
        assert len(receiver.requests) == 1


def _certificate(folder: Path, name: str) -> Path:
    """Write a certificate that is its own authority, with its key; return the path of the certificate alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    ).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.pem").write_bytes(made + private)
    (folder / "authority.pem").write_bytes(made)
    return folder / "authority.pem"


@given(st.binary(), st.text("0123456789abcdef-", min_size=1))
def test_signature_is_that_of_another_implementation(body: bytes, message_id: str) -> None:
    secret, now = new_secret(), datetime.now(UTC)
    text = body.hex()
    expected = Verifier(secret).sign(message_id, now, text)
    assert signature(secret, message_id, int(now.timestamp()), text.encode()) == expected


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64", "QUJD" * 10, "whsec_" + "QUJD" * 30]
)
def test_wrong_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        secret_bytes(secret)


@given(st.integers(1, 10), st.floats(0, 1), st.none() | st.floats(0, 1e9))
def test_pauses_grow_and_heed_the_endpoint(attempt: int, randomness: float, asked: float | None) -> None:
    pause = retry_delay(attempt, randomness, asked)
    planned = DELAYS[min(attempt, 9) - 1]
    assert pause >= planned
    if not asked or asked <= planned:
        assert pause <= planned * 1.2
    else:
        assert pause >= min(asked, 86_400)
        assert pause <= max(planned * 1.2, 86_400)


@given(st.integers(0, 10**6))
def test_retry_after_is_a_number_or_a_date(seconds: int) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert retry_after(str(seconds), now) == seconds
    assert retry_after(format_datetime(now + timedelta(seconds=seconds), usegmt=True), now) == seconds
    assert retry_after(format_datetime(now - timedelta(seconds=seconds), usegmt=True), now) == 0
    assert retry_after("soon", now) is None
    assert retry_after(None, now) is None
    assert retry_after("Tue, 01 Jan 2030 00:00:00 +" + "9" * 20, now) is None
