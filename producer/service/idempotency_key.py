"""What an idempotency key is, how it stands in a request, and when two submissions under it are the same.

The header is that of the IETF draft "The Idempotency-Key HTTP Header Field"
(draft-ietf-httpapi-idempotency-key-header): a structured field string (RFC 9651, section 3.3.3),
``Idempotency-Key: "8e03978e"``. Nearly everybody sends it bare, ``Idempotency-Key: 8e03978e``, so both are taken, and
mean the same key.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Final

from jobtape.producer.service.errors import IdempotencyKeyInvalid
from jobtape.producer.service.submission import Submission

HEADER: Final = "Idempotency-Key"
MAX_LENGTH: Final = 255
PATTERN: Final = r"^[\x21-\x7e]{1,255}$"
_KEY: Final = re.compile(PATTERN.removesuffix("$") + r"\Z")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_FORM: Final = f"a key is 1 to {MAX_LENGTH} visible ASCII characters without spaces, a UUID for instance"


def checked_key(text: str) -> str:
    """The key as it is. Raises IdempotencyKeyInvalid."""
    if not _KEY.match(text):
        raise IdempotencyKeyInvalid(f"this is not an idempotency key: {_FORM}")
    return text


def key_in_header(values: Sequence[str]) -> str | None:
    """The key of a request with these ``Idempotency-Key`` headers; None without one. Raises IdempotencyKeyInvalid."""
    if not values:
        return None
    if len(values) > 1:
        raise IdempotencyKeyInvalid(f"there are {len(values)} headers {HEADER}: send one")
    value = values[0].strip(" \t")
    if not value.startswith('"'):
        return checked_key(value)
    if (quoted := _QUOTED.fullmatch(value)) is None:
        raise IdempotencyKeyInvalid(f"the header {HEADER} begins with a quote and is not one quoted string: {_FORM}")
    return checked_key(re.sub(r"\\(.)", r"\1", quoted[1]))


def digest_of(submission: Submission) -> str:
    """The SHA-256 of the submission as canonical JSON: sorted names, no spaces, times in UTC, what is absent as null.

    So the order of names and the white space of a body do not matter; 1 and 1.0 are not the same. The submission must
    have been found fit to be carried. Takes milliseconds for a large payload.
    """
    values = submission.model_dump(mode="json", exclude={"idempotency_key"})
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
