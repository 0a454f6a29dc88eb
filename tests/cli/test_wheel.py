"""The wheel in a project that has packages of its own called ``schemas``, ``view`` and ``consumer``."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.installation import installation_in
from tests.cli.programs import LIMIT, Program, until
from tests.conftest import MakeTopology
from tests.namespaces import environment_for

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "view", "consumer", "broker", "producer")
JOBS = """
import broker, consumer, producer, view
from jobtape import job
from schemas import PRICE

@job("order")
def order(pieces: int) -> dict[str, object]:
    rooms = [module.__file__ for module in (broker, consumer, producer, view)]
    return {"price": pieces * PRICE, "rooms": rooms}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("jobtape-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel, and our dependencies but not our editable install."""
    folder = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    # Folders that a .pth file names are searched, but the .pth files in them are not read: that of the editable
    # install stays without effect.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's project."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("PRICE = 5\n")
    (tmp_path / "shop.py").write_text(JOBS)
    return tmp_path


@pytest.fixture
def up(python: Path, project: Path, broker_url: str, make_topology: MakeTopology) -> Iterator[str]:
    """``jobtape up`` there; the API's address."""
    installation = installation_in(project, **environment_for(broker_url, make_topology()), JOBTAPE_JOBS="shop")
    program = Program([str(python.parent / "jobtape"), "up"], installation.env, project)
    program.line_with("api ", "running on")
    yield f"http://127.0.0.1:{installation.port}"
    program.close()


def test_wheel_contains_only_jobtape(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"jobtape"}
    for package in PACKAGES:
        assert f"jobtape/{package}/__init__.py" in names
    assert "jobtape/py.typed" in names


def test_installed_wheel_is_imported(python: Path, project: Path) -> None:
    done = subprocess.run(
        [str(python), "-c", "import jobtape; print(jobtape.__file__)"],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(str(python.parents[1]))


def test_users_packages_do_not_shadow_ours(up: str, project: Path) -> None:
    with httpx.Client(base_url=up, timeout=LIMIT, trust_env=False) as client:
        order = {"type": "order", "payload": {"pieces": 3}}
        # The projector makes the tape, and may be slower than the API.
        until(lambda: client.get("/health/ready").status_code == 200, "all parts are ready")
        answer = client.post("/jobs", json=order)
        assert answer.status_code == 202, answer.text
        path = answer.headers["location"]
        until(lambda: client.get(path).json().get("state") in ("succeeded", "failed"), "the job ends")
        job = client.get(path).json()
    assert job["state"] == "succeeded", json.dumps(job["error"])
    assert job["result"]["price"] == 15
    assert all(Path(file).is_relative_to(project) for file in job["result"]["rooms"])
