"""Tests the example application as a user runs it: with uvicorn, a worker, a projector and uploads over HTTP."""

import hashlib
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest
from fastapi import HTTPException, UploadFile
from PIL import Image

from examples.app import store
from examples.files import SAMPLES
from examples.thumbnails import MAX_FILE_BYTES
from jobtape.broker.declare import remove_namespace
from tests.namespaces import environment_for, some_topology
from tests.waiting import eventually
from tools.clone import ROOT
from tools.processes.ports import free_port
from tools.processes.tethered import Tethered

PHOTO = SAMPLES / "rocket.jpg"

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Running:
    """The URL of the application, and the folder with its uploads."""

    url: str
    files: Path


@pytest.fixture(scope="module")
def running(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run projector, worker and application as processes in one namespace."""
    folder = tmp_path_factory.mktemp("app")
    topology = some_topology("default", "mail", "images", "files")
    port = free_port()
    environment = os.environ | {
        **environment_for(broker_url, topology),
        "DATABASE_URL": f"sqlite:///{folder / 'view.db'}",
        "JOBTAPE_JOBS": "examples.jobs",
        "JOBTAPE_EXAMPLE_FILES": str(folder / "files"),
    }
    python = [sys.executable, "-m"]
    commands = {
        "projector": [*python, "jobtape", "projector"],
        "worker": [*python, "jobtape", "worker"],
        "web": [*python, "uvicorn", "examples.app:app", "--port", str(port)],
    }
    processes = [
        Tethered(command, log=folder / f"{name}.log", environment=environment, folder=ROOT)
        for name, command in commands.items()
    ]
    yield Running(f"http://127.0.0.1:{port}", folder / "files")
    for process in reversed(processes):
        process.stop()
    anyio.run(remove_namespace, broker_url, topology)


@pytest.fixture
async def http(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application. All parts are ready."""
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:

        async def ready() -> Any:
            try:
                return (await client.get("/jobtape/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready, 60, what="the application is ready")
        yield client


async def wait_final(http: httpx.AsyncClient, location: str) -> dict[str, Any]:
    async def final() -> Any:
        job = (await http.get(location)).json()
        return job if job["state"] in ("succeeded", "failed") else None

    job: dict[str, Any] = await eventually(final, what=f"{location} is finished")
    return job


async def test_upload_becomes_thumbnails(http: httpx.AsyncClient, running: Running) -> None:
    answer = await http.post(
        "/thumbnails", files={"file": ("../../my photo.JPG", PHOTO.read_bytes())}, data={"sizes": ["40", "80"]}
    )
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert answer.headers["Location"] == f"/jobtape/jobs/{accepted['job']}"
    assert (running.files / accepted["file"]).read_bytes() == PHOTO.read_bytes()
    assert accepted["file"].endswith(".jpg")

    job = await wait_final(http, answer.headers["Location"])
    assert (job["state"], job["type"], job["payload"]["sizes"]) == ("succeeded", "image.thumbnail", [40, 80])
    for size, one in zip((40, 80), job["result"]["thumbnails"], strict=True):
        got = await http.get(f"/{one['name']}")
        assert (got.status_code, hashlib.sha256(got.content).hexdigest()) == (200, one["sha256"])
        assert max(Image.open(io.BytesIO(got.content)).size) == size


async def test_upload_without_sizes_uses_defaults(http: httpx.AsyncClient) -> None:
    answer = await http.post("/thumbnails", files={"file": PHOTO.read_bytes()})
    job = await wait_final(http, answer.headers["Location"])
    assert [max(one["width"], one["height"]) for one in job["result"]["thumbnails"]] == [64, 128, 256]


async def test_job_of_file_that_is_no_picture_fails(http: httpx.AsyncClient) -> None:
    answer = await http.post("/thumbnails", files={"file": ("a.png", b"not a picture")})
    assert answer.status_code == 202
    job = await wait_final(http, answer.headers["Location"])
    assert (job["state"], job["error"]["type"]) == ("failed", "PictureRefused")


async def test_too_large_upload_is_refused_and_removed(http: httpx.AsyncClient, running: Running) -> None:
    before = sorted(running.files.rglob("*"))
    for size in (MAX_FILE_BYTES + 1, MAX_FILE_BYTES + 1_000_000):
        answer = await http.post("/thumbnails", files={"file": ("a.jpg", b"x" * size)})
        assert answer.status_code == 413, answer.text
    assert sorted(running.files.rglob("*")) == before


@pytest.mark.parametrize("sizes", ["0", "5000", "big"])
async def test_wrong_sizes_are_refused(sizes: str, http: httpx.AsyncClient) -> None:
    answer = await http.post("/thumbnails", files={"file": PHOTO.read_bytes()}, data={"sizes": sizes})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{UUID(int=1)}/64.jpg", 404),
        (f"{UUID(int=1)}/..%2f64.jpg", 404),
        (f"{UUID(int=1)}/%2e%2e", 422),
        (f"{UUID(int=1)}/64.jpg%00", 422),
        (f"{UUID(int=1)}/64.part", 422),
        ("%2e%2e/64.jpg", 422),
        ("%00/64.jpg", 422),
    ],
)
async def test_download_serves_only_thumbnails(path: str, status: int, http: httpx.AsyncClient) -> None:
    assert (await http.get(f"/thumbnails/{path}")).status_code == status


def test_store_limits_the_file(tmp_path: Path) -> None:
    content = b"x" * 1001
    with pytest.raises(HTTPException) as refused:
        anyio.run(store, UploadFile(io.BytesIO(content), filename="a.exe"), tmp_path, 1000)
    assert refused.value.status_code == 413
    assert not list(tmp_path.iterdir())
    name = anyio.run(store, UploadFile(io.BytesIO(content), filename="a.exe"), tmp_path, 1001)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert "." not in name
    assert (tmp_path / name).read_bytes() == content
