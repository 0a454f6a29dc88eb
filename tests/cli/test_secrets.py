"""A secret of a payload is on no disk: not the broker's, not the database's, in no log and in no export."""

import base64
import gzip
import hashlib
import json
from pathlib import Path

import pytest

from jobtape.view.store import Store
from tests.cli.installation import installation_in
from tests.namespaces import environment_for, some_topology
from tools.brokers.node import PrivateNode

JOBS = """
import hashlib
from pydantic import BaseModel, SecretStr
from jobtape import RetryPolicy, job

class Login(BaseModel):
    user: str
    password: SecretStr
    more: list[SecretStr] = []

@job("login")
def login(given: Login) -> str:
    return hashlib.sha256(given.password.get_secret_value().encode()).hexdigest()

@job("fail", retry=RetryPolicy(max_attempts=2, first=0.01))
def fail(given: Login) -> Login:
    raise ValueError(f"cannot log in with {given!r}")

@job("echo")
def echo(given: Login) -> Login:
    return given
"""
SECRET = "swordfish-3f81c2"
PAYLOAD = {"user": "ada", "password": SECRET, "more": [SECRET]}


def found_in(folder: Path, text: bytes) -> list[str]:
    """Return the files of the folder that contain the text, also as Base64 and compressed with gzip."""
    forms = [text, *(base64.b64encode(b" " * i + text)[4:-4] for i in range(3))]
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".gz":
                content += gzip.decompress(content)
            if any(form in content for form in forms):
                found.append(str(path))
    return found


@pytest.mark.timeout(240)
def test_planted_secret_is_on_no_disk(tmp_path: Path, node: PrivateNode) -> None:
    own = tmp_path / "own"
    own.mkdir()
    made = installation_in(own, **environment_for(node.url, some_topology("default")))
    (own / "jobs_here.py").write_text(JOBS)
    made.env |= {"JOBTAPE_LOG_LEVEL": "debug", "JOBTAPE_ACCESS_LOG": "on"}
    try:
        refused = made.run("up")
        assert refused.returncode == 2
        assert "set JOBTAPE_SECRET_KEYS" in refused.stderr
        made.env["JOBTAPE_SECRET_KEYS"] = base64.urlsafe_b64encode(b"k" * 32).decode()
        program = made.up()
        payload = json.dumps(PAYLOAD)
        hashed = made.run("submit", "login", payload, "--idempotency-key", "one", "--wait")
        assert hashed.returncode == 0, hashed.stderr
        assert hashed.stdout.strip().strip('"') == hashlib.sha256(SECRET.encode()).hexdigest()
        again = made.submit("login", PAYLOAD, "--idempotency-key", "one")
        shown = json.loads(made.run("status", again.split()[0], "--json").stdout)
        assert shown["payload"] == {"user": "ada", "password": "**********", "more": ["**********"]}
        assert made.run("submit", "fail", payload, "--wait").returncode == 1
        echoed = json.loads(made.run("submit", "echo", payload, "--wait").stdout)
        assert echoed == {"user": "ada", "password": "**********", "more": ["**********"]}
        later = made.submit("login", PAYLOAD, "--delay", "3600")
        assert made.run("export", str(own / "tape.gz")).returncode == 0
        outputs = [made.run("list", "--json").stdout, made.run("events", later, "--json").stdout, *program.lines]
        assert SECRET not in "\n".join(outputs)
        assert "jobtape-secret:" in outputs[1]
    finally:
        made.close()
    store = Store(made.env["DATABASE_URL"])
    history = "".join(row.event for row in store.history())  # compressed in the file
    store.close()
    assert SECRET not in history
    assert history.count("jobtape-secret:") >= 8
    node.stop()
    try:
        assert found_in(own, SECRET.encode()) == []
        assert found_in(node.folder, SECRET.encode()) == []
        assert found_in(own, b"jobtape-secret:") != [], "the export has the encrypted one"
        assert found_in(node.folder, b"jobtape-secret:") != [], "the tape has the encrypted one"
    finally:
        node.start()
