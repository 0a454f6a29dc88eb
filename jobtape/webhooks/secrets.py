"""The secrets of endpoints, and the signatures that are made with them, as Standard Webhooks describes both.

A secret is ``whsec_`` and the base64 of 24 to 64 random bytes. In the database it is encrypted as the secrets of
payloads are.
"""

import base64
import binascii
import hmac
import secrets
from typing import Final

from jobtape.schemas.errors import JobtapeError
from jobtape.schemas.job_types.secrets import VARIABLE, Cipher, installed_cipher

PREFIX: Final = "whsec_"
NEW_BYTES: Final = 32
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64


class WebhookKeyMissing(JobtapeError):
    """The installation's fault: it has no JOBTAPE_SECRET_KEYS, with which the secrets of webhooks are encrypted."""


def new_secret() -> str:
    """Return a new random secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(NEW_BYTES)).decode()


def secret_bytes(secret: str) -> bytes:
    """Return the bytes that ``secret`` stands for. Raises ValueError, without the secret, when it is none."""
    try:
        found = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not secret.startswith(PREFIX) or not LEAST_BYTES <= len(found) <= MOST_BYTES:
        raise ValueError(f"a secret is {PREFIX} and the base64 of {LEAST_BYTES} to {MOST_BYTES} bytes")
    return found


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of version 1: HMAC-SHA256 of id, timestamp (seconds since 1970) and body."""
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(secret_bytes(secret), signed, "sha256")).decode()


def secret_cipher() -> Cipher:
    """Return what encrypts secrets for the database: the cipher of JOBTAPE_SECRET_KEYS. Raises WebhookKeyMissing."""
    cipher = installed_cipher()
    if cipher is None:
        raise WebhookKeyMissing(
            f"webhooks need a key for their secrets: set {VARIABLE}, the same for the API and for projectors "
            "(docs/how-to/webhooks.md says how)"
        )
    return cipher
