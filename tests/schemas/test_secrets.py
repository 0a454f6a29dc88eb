"""Secrets in payloads are found at every depth, encrypted, and readable only where the handler is called."""

import base64
import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, BaseModel, Field, Secret, SecretBytes, SecretStr

from jobtape import job
from jobtape.producer.service.submission.idempotency import digest_of
from jobtape.producer.service.submission.limits import Limits
from jobtape.producer.service.submission.order_check import order_for
from jobtape.schemas.errors import PayloadInvalid
from jobtape.schemas.job import Order
from jobtape.schemas.job_types.job_type import JobTypeSpec
from jobtape.schemas.job_types.secrets import MASK, Cipher, SecretKeysWrong, check_keys, without_secrets
from jobtape.schemas.submission import Submission
from jobtape.settings import Settings
from tests.view.samples import NOON

HIDDEN = "hunter2"
KEYS = [base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (1, 2)]
LIMITS: Limits = Settings().limits


class Basic(BaseModel):
    kind: Literal["basic"] = "basic"
    password: SecretStr = Field(validation_alias=AliasChoices("password", "pass"))


class Token(BaseModel):
    kind: Literal["token"]
    token: SecretBytes
    parts: list[SecretStr] = []


class Login(BaseModel):
    user: str
    auth: Annotated[Basic | Token, Field(discriminator="kind")]
    more: dict[str, Secret[str]] = {}
    pin: Secret[int] | None = None
    pair: tuple[str, SecretStr] = ("", SecretStr(""))
    next: "Login | None" = None


@job("login")
def login(given: Login, plain: str = "") -> str:
    return plain


class Derived(Login):
    token: SecretStr


@job("anything")
def anything() -> Any: ...


@job("echo")
def echo(given: Login) -> Login:
    return given


JOB_TYPES: dict[str, JobTypeSpec] = {"login": login, "echo": echo, "anything": anything}
PAYLOADS: list[dict[str, Any]] = [
    {"user": "a", "auth": {"kind": "basic", "password": HIDDEN}},
    {"user": "a", "auth": {"kind": "basic", "pass": HIDDEN}},
    {"user": "a", "auth": {"kind": "token", "token": HIDDEN, "parts": [HIDDEN, HIDDEN]}},
    {"user": "a", "auth": {"kind": "basic", "password": ""}, "more": {"x": HIDDEN}, "pair": ["p", HIDDEN]},
    {
        "user": "a",
        "auth": {"kind": "basic", "password": ""},
        "next": {"user": "b", "auth": {"kind": "basic", "password": HIDDEN}},
    },
]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBTAPE_SECRET_KEYS", KEYS[0])


def order(payload: dict[str, Any], job_type: str = "login") -> Order:
    return order_for(Submission(type=job_type, payload=payload), JOB_TYPES, LIMITS, NOON)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_secret_is_encrypted_at_every_depth(payload: dict[str, Any]) -> None:
    recorded = order({"given": payload}).payload
    assert HIDDEN not in json.dumps(recorded)
    assert "jobtape-secret:" in json.dumps(recorded)
    assert "jobtape-secret:" not in json.dumps(without_secrets(recorded))
    assert login.arguments(recorded, 1)["given"] == Login.model_validate(payload)


def test_secret_number_is_read_back_as_a_number() -> None:
    recorded = order({"given": PAYLOADS[0] | {"pin": 4711}}).payload
    assert "4711" not in json.dumps(recorded)
    given = login.arguments(recorded, 1)["given"]
    assert given.pin.get_secret_value() == 4711


def test_payload_of_a_call_reaches_the_handler() -> None:
    given = Login.model_validate(PAYLOADS[2])
    sent = login.payload_to_send(given)
    assert login.arguments(order(sent).payload, 1)["given"] == given


def test_equal_submissions_stay_equal_until_the_key_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    submission = Submission(type="login", payload={"given": PAYLOADS[0]})
    first, digest = order({"given": PAYLOADS[0]}), digest_of(submission)
    assert order({"given": PAYLOADS[0]}) == first
    assert digest_of(submission) == digest
    monkeypatch.setenv("JOBTAPE_SECRET_KEYS", f"{KEYS[1]},{KEYS[0]}")
    assert order({"given": PAYLOADS[0]}) != first
    assert digest_of(submission) != digest
    assert login.arguments(first.payload, 1)["given"] == Login.model_validate(PAYLOADS[0])


def test_encrypted_text_in_another_field_is_not_decrypted() -> None:
    taken = order({"given": PAYLOADS[0]}).payload["given"]["auth"]["password"]
    stolen = order({"given": PAYLOADS[0] | {"auth": {"kind": "basic", "password": taken}}, "plain": taken}).payload
    arguments = login.arguments(stolen, 1)
    assert arguments["plain"] == taken
    assert arguments["given"].auth.password.get_secret_value() == taken


def test_wrong_and_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = order({"given": PAYLOADS[0]}).payload
    monkeypatch.setenv("JOBTAPE_SECRET_KEYS", KEYS[1])
    with pytest.raises(SecretKeysWrong, match="add it to JOBTAPE_SECRET_KEYS"):
        login.arguments(recorded, 1)
    monkeypatch.delenv("JOBTAPE_SECRET_KEYS")
    with pytest.raises(SecretKeysWrong, match="set JOBTAPE_SECRET_KEYS"):
        order({"given": PAYLOADS[0]})
    with pytest.raises(SecretKeysWrong, match="login: "):
        check_keys({"login": login.secrets})
    with pytest.raises(SecretKeysWrong, match="32 random bytes"):
        Cipher("short")


def test_changed_text_is_refused() -> None:
    cipher = Cipher(KEYS[0])
    text = cipher.encrypt(HIDDEN)
    assert cipher.decrypt(text) == HIDDEN
    with pytest.raises(SecretKeysWrong, match="was changed"):
        cipher.decrypt(text[:-4] + ("AAA=" if text[-4:] != "AAA=" else "AAE="))


def test_result_masks_its_secrets() -> None:
    given = Login.model_validate(PAYLOADS[0] | {"more": {"x": HIDDEN}})
    result = echo.result_to_record(given)
    assert HIDDEN not in json.dumps(result)
    assert result["auth"]["password"] == MASK
    assert echo.read_result(result).more["x"].get_secret_value() == MASK
    derived = Derived(**given.model_dump(by_alias=True), token=SecretStr(HIDDEN))
    for job_type, value in ((echo, derived), (anything, {"deep": [derived]}), (anything, SecretStr(HIDDEN))):
        assert HIDDEN not in json.dumps(job_type.result_to_record(value))


def flow(given: Any) -> Submission:
    nodes = {
        "first": {"type": "login", "payload": {"given": PAYLOADS[0]}},
        "second": {"type": "login", "payload": {"given": given, "plain": {"$from": "first"}}},
    }
    return Submission(type="jobtape.flow", payload={"nodes": nodes})


def test_secrets_of_flow_are_encrypted_and_cannot_be_references() -> None:
    recorded = order_for(flow(PAYLOADS[2]), JOB_TYPES, LIMITS, NOON).payload
    assert HIDDEN not in json.dumps(recorded)
    for given in (
        {"user": "a", "auth": {"kind": "basic", "password": {"$from": "first"}}},
        {"user": "a", "auth": {"$from": "first"}},
        {"$from": "first"},
    ):
        with pytest.raises(PayloadInvalid, match="instead of a reference"):
            order_for(flow(given), JOB_TYPES, LIMITS, NOON)
