"""The secrets of endpoints, and the signatures that are made with them, as Standard Webhooks describes both.

A secret is ``whsec_`` and the base64 of 24 to 64 random bytes. In the database it is encrypted with the key of the
installation.
"""

import base64
import binascii
import hmac
import secrets
from typing import Final

from jobtape.schemas.errors import JobtapeError

PREFIX: Final = "whsec_"
NEW_BYTES: Final = 32
LEAST_BYTES: Final = 24
MOST_BYTES: Final = 64


class WebhookKeyWrong(JobtapeError):
    """The installation's fault: JOBTAPE_WEBHOOK_KEY is missing, or is not the key of what is in the database."""


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


class SecretCipher:
    """Encrypts secrets for the database. ``keys``: the value of JOBTAPE_WEBHOOK_KEY; None raises WebhookKeyWrong.

    The first of several keys encrypts; all of them decrypt.
    """

    def __init__(self, keys: str | None) -> None:
        if keys is None:
            raise WebhookKeyWrong(
                "webhooks need a key for their secrets: set JOBTAPE_WEBHOOK_KEY, the same for the API and for "
                "projectors (docs/how-to/webhooks.md says how)"
            )
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - most processes need no cryptography

        self._fernet = MultiFernet([Fernet(key.strip()) for key in keys.split(",")])

    def encrypt(self, secret: str) -> bytes:
        """Return the encrypted secret."""
        return self._fernet.encrypt(secret.encode())

    def decrypt(self, encrypted: bytes) -> str:
        """Return the secret. Raises WebhookKeyWrong when none of the keys fits."""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            return self._fernet.decrypt(encrypted).decode()
        except InvalidToken:
            raise WebhookKeyWrong(
                "the secret of the webhook was encrypted with another key: add that key to JOBTAPE_WEBHOOK_KEY after a "
                "comma, or rotate the secret"
            ) from None
