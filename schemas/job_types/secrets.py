"""Encrypts the secrets in payloads: the values of fields of the types SecretStr, SecretBytes and Secret. The secrets of
webhooks are encrypted with the same keys, see ``webhooks.secrets``.

Theory of operation. Pydantic marks such fields in the JSON Schema of the payload, at every depth. Before a payload is
published, the values at these places are replaced by texts with the encrypted values, and only the call of the handler
decrypts them again: so they are encrypted on the tape, in the view, and for everybody who gets events. Only values at
these places are decrypted, so nobody gets a secret by sending its encrypted text in another field.

AES-SIV (RFC 5297) encrypts the same value to the same text. So a repeated submission is the same submission, and a
unique job is found by a secret, at the price that one sees which secrets are equal.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from jobtape.schemas import plainjson
from jobtape.schemas.errors import JobtapeError

VARIABLE: Final = "JOBTAPE_SECRET_KEYS"
MASK: Final = "**********"
"""What people see instead of a secret, as pydantic shows it."""
_PREFIX: Final = "jobtape-secret:1:"
_BYTES: Final = 32
_DEEPEST: Final = 100

Path = tuple[str | int, ...]


class SecretKeysWrong(JobtapeError):
    """The installation's fault: JOBTAPE_SECRET_KEYS is missing, or has not the key of what was encrypted."""


class SecretReferenced(ValueError):
    """A flow takes a secret from the result of a job, or from its input, where it is not encrypted."""


def fault_of_keys(text: str) -> str | None:
    """Return what is wrong with keys, separated by commas; None if nothing is."""
    for key in text.split(","):
        try:
            size = len(base64.urlsafe_b64decode(key.strip()))
        except ValueError:
            size = 0
        if size != _BYTES:
            return (
                "a key is 32 random bytes in URL-safe base64; make one with "
                "`python -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'`"
            )
    return None


class Cipher:
    """Encrypts with the first of the ``keys``, which are separated by commas, and decrypts with any of them."""

    def __init__(self, keys: str) -> None:
        if (fault := fault_of_keys(keys)) is not None:
            raise SecretKeysWrong(f"{VARIABLE}: {fault}")
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415 - most processes need none

        raw = [base64.urlsafe_b64decode(key.strip()) for key in keys.split(",")]
        self._ciphers = {_of(key, b"id").hex()[:8]: AESSIV(_of(key, b"values")) for key in raw}
        self._first = next(iter(self._ciphers))
        self._digest_key = _of(raw[0], b"digests")

    def encrypt(self, value: Any) -> str:
        """Return the text for a JSON value. The same value has the same text."""
        encrypted = self._ciphers[self._first].encrypt(plainjson.dumps(value), [_PREFIX.encode()])
        return f"{_PREFIX}{self._first}:{base64.urlsafe_b64encode(encrypted).decode()}"

    def decrypt(self, text: str) -> Any:
        """Return the JSON value. Raises SecretKeysWrong."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        key_id, _, encrypted = text.removeprefix(_PREFIX).partition(":")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretKeysWrong(
                f"a secret was encrypted with the key {key_id[:8]!r}, which this process does not have: add it to "
                f"{VARIABLE}, after a comma"
            )
        try:
            return plainjson.loads(cipher.decrypt(base64.urlsafe_b64decode(encrypted), [_PREFIX.encode()]))
        except (InvalidTag, ValueError):
            raise SecretKeysWrong("a secret was changed after it was encrypted: send it again") from None

    def is_newest(self, text: str) -> bool:
        """Return whether the first key has encrypted the text."""
        return text.startswith(f"{_PREFIX}{self._first}:")

    def digest(self, text: bytes) -> str:
        """Return an HMAC-SHA256, in hexadecimal, from which nobody without the key can find the text by trying."""
        return hmac.new(self._digest_key, text, "sha256").hexdigest()


def installed_cipher() -> Cipher | None:
    """Return the cipher of this process's JOBTAPE_SECRET_KEYS; None without keys. Raises SecretKeysWrong.

    Read from the environment at each call, so that also the child processes of isolated handlers have it.
    """
    keys = os.environ.get(VARIABLE, "").strip()
    return _cipher(keys) if keys else None


def check_keys(fields: Mapping[str, "SecretFields"]) -> None:
    """Raise SecretKeysWrong when a job type has secrets and there is no key. ``fields``: by job type."""
    with_secrets = sorted(name for name, each in fields.items() if each.any)
    if with_secrets and installed_cipher() is None:
        raise SecretKeysWrong(
            f"{', '.join(with_secrets)}: the payload has secrets, and there is no key to encrypt them: set {VARIABLE}, "
            "the same for the API, workers and your application (docs/how-to/secrets.md says how)"
        )


@lru_cache(maxsize=4)
def _cipher(keys: str) -> Cipher:
    return Cipher(keys)


def _of(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"jobtape secrets: " + purpose, hashlib.sha512)


class SecretFields:
    """The places of the secrets in values of a JSON Schema, which pydantic made."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._definitions: Mapping[str, Any] = schema.get("$defs", {})
        self.any = any(_is_secret(each) for each in _each(schema))
        """Whether there can be secrets."""

    def encrypted(self, value: Any, is_reference: Callable[[Any], bool] | None = None) -> Any:
        """Return ``value`` with its secrets encrypted. ``is_reference``: says what is a reference of a flow in it.

        Raises SecretKeysWrong, and SecretReferenced for a reference instead of a secret.
        """
        if not self.any:
            return value
        cipher = installed_cipher()
        if cipher is None:
            raise SecretKeysWrong(
                f"the payload has secrets, and there is no key to encrypt them: set {VARIABLE}, the same for the API, "
                "workers and your application (docs/how-to/secrets.md says how)"
            )
        if is_reference is not None:
            for at, schema, part in self._parts(self._schema, value, (), 0):
                if is_reference(part) and self._holds_secret(schema):
                    raise SecretReferenced(
                        f"/{'/'.join(map(str, at))} has a secret, and results and the input of a flow are not "
                        "encrypted: give the value itself instead of a reference"
                    )
        return self._changed(value, cipher.encrypt)

    def decrypted(self, value: Any) -> Any:
        """Return ``value`` with its secrets as they were sent. Raises SecretKeysWrong."""
        if not self.any:
            return value

        def decrypt(text: Any) -> Any:
            if not is_encrypted(text):
                return text
            cipher = installed_cipher()
            if cipher is None:
                raise SecretKeysWrong(f"the payload has encrypted secrets: set {VARIABLE} for this worker too")
            return cipher.decrypt(text)

        return self._changed(value, decrypt)

    def masked(self, value: Any) -> Any:
        """Return ``value`` with a mask instead of each secret."""
        return self._changed(value, lambda _: MASK) if self.any else value

    def _changed(self, value: Any, change: Callable[[Any], Any]) -> Any:
        found = self._parts(self._schema, value, (), 0)
        for place in sorted({at for at, schema, _ in found if _is_secret(schema)}, key=len):
            value = _replaced(value, place, change)
        return value

    def _parts(self, schema: Any, value: Any, at: Path, depth: int) -> Iterator[tuple[Path, dict[str, Any], Any]]:
        """Yield each part of ``value`` down to its secrets, with its place and its schema; with several alternatives,
        once for each of them.
        """
        if not isinstance(schema, dict) or value is None or depth > _DEEPEST:
            return
        yield at, schema, value
        if _is_secret(schema):
            return
        if isinstance(reference := schema.get("$ref"), str):
            yield from self._parts(self._definitions.get(reference.rpartition("/")[2]), value, at, depth + 1)
        for kind in ("anyOf", "oneOf", "allOf"):
            for each in schema.get(kind, ()):
                yield from self._parts(each, value, at, depth + 1)
        if isinstance(value, dict):
            for name, each in value.items():
                own = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
                for inner in (own, *schema.get("patternProperties", {}).values()):
                    yield from self._parts(inner, each, (*at, name), depth + 1)
        elif isinstance(value, list):
            first = schema.get("prefixItems", [])
            for i, each in enumerate(value):
                yield from self._parts(first[i] if i < len(first) else schema.get("items"), each, (*at, i), depth + 1)

    def _holds_secret(self, schema: Any) -> bool:
        seen: set[str] = set()
        left = [schema]
        while left:
            for each in _each(left.pop()):
                if _is_secret(each):
                    return True
                name = str(each.get("$ref", "")).rpartition("/")[2]
                if name and name not in seen:
                    seen.add(name)
                    left.append(self._definitions.get(name))
        return False


def is_encrypted(value: Any) -> bool:
    """Return whether ``value`` is the text of an encrypted secret."""
    return isinstance(value, str) and value.startswith(_PREFIX)


def without_secrets(value: Any) -> Any:
    """Return the JSON value with a mask instead of each encrypted secret, wherever it is."""
    if isinstance(value, str):
        return MASK if value.startswith(_PREFIX) else value
    if isinstance(value, dict):
        return {name: without_secrets(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    return value


def secrets_in(value: Any) -> set[str]:
    """Return the texts of the secrets in a value of Python, also where its annotation does not name them."""
    found: set[str] = set()
    seen: set[int] = set()
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str | bytes | int | float | None) or id(each) in seen:
            continue
        seen.add(id(each))
        if hasattr(type(each), "get_secret_value"):
            secret = each.get_secret_value()
            found.add(secret.decode("utf-8", "replace") if isinstance(secret, bytes) else str(secret))
        elif isinstance(each, Mapping):
            left += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            left += each
        else:
            left += getattr(each, "__dict__", {}).values()
            left += (getattr(each, "__pydantic_extra__", None) or {}).values()
    return found - {""}


def without(secrets: set[str], value: Any) -> Any:
    """Return the JSON value with a mask instead of each text that is one of ``secrets``."""
    if not secrets:
        return value
    if isinstance(value, str):
        return MASK if value in secrets else value
    if isinstance(value, dict):
        return {name: without(secrets, each) for name, each in value.items()}
    return [without(secrets, each) for each in value] if isinstance(value, list) else value


def _is_secret(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("format") == "password" and schema.get("writeOnly") is True


def _each(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects in a schema."""
    left = [schema]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            yield each
            left += each.values()
        elif isinstance(each, list):
            left += each


def _replaced(value: Any, place: Path, change: Callable[[Any], Any]) -> Any:
    if not place:
        return change(value)
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = _replaced(copied[place[0]], place[1:], change)
    return copied
