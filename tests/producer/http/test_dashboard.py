"""The dashboard's page and files: where they are served, how browsers may keep them, and what they may do."""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import httpx
import pytest
from fastapi import FastAPI

from jobtape.app import create_app
from jobtape.schemas.events import EndReason
from tests.producer.running_api import problem, without_broker
from tools.front_end.vendor import SUMS, VENDOR, sha256

pytestmark = pytest.mark.anyio

PAGE_LIMIT = 75_000
"""Bytes that a first visit may load, compressed."""


def client_of(app: FastAPI, path: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"http://api{path}")


@pytest.fixture
async def client(sqlite_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key, of an API that has one."""
    async with client_of(create_app(without_broker(sqlite_url, api_key="a-key-of-the-api"), [])) as opened:
        yield opened


def loaded_by(page: str) -> list[str]:
    """Return the addresses of the files that the page loads."""
    return sorted(set(re.findall(r'(?:href|src)="([^"]+)"', page)))


async def test_page_and_files_need_no_key(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    files = loaded_by(page.text)
    assert {path.rpartition(".")[2] for path in files} == {"css", "js", "svg"}
    assert not [path for path in files if path.startswith(("/", "http"))], "addresses are relative, for any prefix"
    for path in files:
        assert (await client.get(f"/{path}")).status_code == 200, path


async def test_modules_import_only_files_that_exist(client: httpx.AsyncClient) -> None:
    for path in loaded_by((await client.get("/")).text):
        if path.endswith(".js"):
            source = (await client.get(f"/{path}")).text
            for name in re.findall(r'^(?:import|export)\b[^;"(=]*"([^"]+)";', source, re.MULTILINE):
                assert name.startswith("."), f"{path} imports {name!r}, which needs an import map"
                found = await client.get(str(httpx.URL(f"http://api/{path}").join(name)))
                assert found.status_code == 200, f"{path} imports {name}"


async def test_page_may_run_scripts_of_this_origin_only(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert not re.search(r"<script>|<style|style=|\son\w+=", page.text)


async def test_page_is_checked_again_and_files_are_kept(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["cache-control"] == "no-cache"
    again = await client.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    script = next(path for path in loaded_by(page.text) if path.endswith("app.js"))
    assert "immutable" in (await client.get(f"/{script}")).headers["cache-control"]
    # While a new version is rolled out, a page of another process may ask for its own version's file.
    other = await client.get("/dashboard/0123456789abcdef/app.js")
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    problem(await client.get("/dashboard/0123456789abcdef/../../pyproject.toml"), 404, "not-found")
    problem(await client.get("/dashboard/0123456789abcdef/none.js"), 404, "not-found")


async def test_first_visit_is_small(client: httpx.AsyncClient) -> None:
    plain = await client.get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    size = len(gzip.compress(plain.content))
    for path in loaded_by(plain.text):
        async with client.stream("GET", f"/{path}", headers={"accept-encoding": "gzip"}) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            size += len(b"".join([part async for part in answer.aiter_raw()]))
    assert size < PAGE_LIMIT


async def test_dashboard_can_be_off(sqlite_url: str) -> None:
    async with client_of(create_app(without_broker(sqlite_url, dashboard="off"), [])) as client:
        problem(await client.get("/"), 404, "not-found")
        assert (await client.get("/health/live")).status_code == 200


async def test_dashboard_of_mounted_api(sqlite_url: str) -> None:
    outer = FastAPI()
    outer.mount("/jobtape", create_app(without_broker(sqlite_url), []))
    async with client_of(outer) as client:
        moved = await client.get("/jobtape")
        assert moved.headers["location"] == "http://api/jobtape/"
        page = await client.get("/jobtape/")
        assert {(await client.get(f"/jobtape/{path}")).status_code for path in loaded_by(page.text)} == {200}


def test_vendored_files_have_their_sums() -> None:
    sums = {name: digest for digest, _, name in (line.split(" ") for line in (VENDOR / SUMS).read_text().splitlines())}
    found = {path.name: sha256(path.read_bytes()) for path in VENDOR.iterdir() if path.name != SUMS}
    assert found == sums, "run make vendor"


def test_vendored_files_name_no_other_host() -> None:
    scripts = [path for path in VENDOR.iterdir() if path.suffix == ".js"]
    assert scripts
    for path in scripts:
        assert not re.search(r"https?://(?!www\.w3\.org/)", path.read_text()), path.name


def test_reasons_of_the_filter_are_those_of_failures() -> None:
    page = (VENDOR.parent / "pages" / "jobs.js").read_text()
    listed = re.search(r"const REASONS = \[(.*?)\];", page, re.DOTALL)
    assert listed is not None
    assert re.findall(r'"(\w+)"', listed[1]) == list(get_args(EndReason))


def test_lock_file_contains_no_addresses() -> None:
    lock = (Path(__file__).parents[3] / "tools/front_end/package-lock.json").read_text()
    assert '"integrity"' in lock
    assert "://" not in lock
