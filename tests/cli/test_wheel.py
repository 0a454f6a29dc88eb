"""Tests the wheel in a project with packages that are named as Jobtape's own: ``schemas``, ``view`` and so on."""

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import httpx
import pytest

from tests.cli.installation import installation_in
from tests.cli.programs import LIMIT, Program, until
from tests.conftest import MakeTopology
from tests.namespaces import environment_for
from tools.processes.ports import free_port

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "view", "consumer", "broker", "producer")
JOBS = """
import broker, consumer, producer, view
from jobtape import job
from schemas import PRICE

@job("order")
def order(pieces: int) -> dict[str, object]:
    files = [module.__file__ for module in (broker, consumer, producer, view)]
    return {"price": pieces * PRICE, "files": files}
"""


TELEMETRY = tuple(f"jobtape.telemetry.{name}" for name in ("light_span", "metric_sender", "otlp", "roots", "spans"))
OPTIONAL = ("jobtape.pytest_plugin", *TELEMETRY)
"""Modules that import what a user adds: pytest, and what jobtape[otel] installs."""
WITHOUT_EXTRA = "import sys; sys.modules.update(dict.fromkeys(('opentelemetry.sdk', 'opentelemetry.exporter')))"
"""Lets imports of what jobtape[otel] installs fail. FastAPI brings OpenTelemetry's API, so that is there."""
IMPORT_ALL = f"""
import importlib, json, pkgutil, sys
import jobtape
for found in pkgutil.walk_packages(jobtape.__path__, "jobtape."):
    if not found.name.endswith(".__main__") and found.name not in {OPTIONAL}:
        importlib.import_module(found.name)
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist and wheel, and return their folder."""
    folder = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Return the path of the wheel."""
    (found,) = built.glob("jobtape-*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an environment with the wheel and Jobtape's dependencies, and return its interpreter."""
    folder = tmp_path_factory.mktemp("venv") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    # Python searches the folders that a .pth file names, but does not read .pth files in them, so the one of the
    # editable install has no effect.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{WITHOUT_EXTRA}\n")
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with packages that are named as Jobtape's own."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("PRICE = 5\n")
    (tmp_path / "shop.py").write_text(JOBS)
    return tmp_path


@pytest.fixture
def up(python: Path, project: Path, broker_url: str, make_topology: MakeTopology) -> Iterator[str]:
    """Run ``jobtape up`` of the wheel in the project, and yield the URL of the API."""
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
    static = "jobtape/producer/dashboard/static"
    assert {f"{static}/index.html", f"{static}/vendor/preact.js", f"{static}/vendor/LICENSE-preact.txt"} <= set(names)


def test_sdist_installs_the_files_of_the_wheel(built: Path, wheel: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("jobtape-*.tar.gz")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(tmp_path), str(sdist)],
        check=True,
        capture_output=True,
    )
    installed = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "jobtape").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as opened:
        assert installed == {name for name in opened.namelist() if name.startswith("jobtape/")}


def test_installed_wheel_is_imported(python: Path, project: Path) -> None:
    done = subprocess.run(
        [str(python), "-c", "import jobtape; print(jobtape.__file__)"],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(str(python.parents[1]))


def test_imports_need_only_the_locked_dependencies(python: Path, project: Path) -> None:
    done = subprocess.run(
        [str(python), "-P", "-c", IMPORT_ALL], cwd=project, capture_output=True, text=True, check=True
    )
    owners = packages_distributions()
    # Many packages are below "opentelemetry": of those that are not locked, none can be imported here.
    imported = set(json.loads(done.stdout)) - {"opentelemetry"}
    needed = {_normal(owner) for name in imported for owner in owners.get(name, ())}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {"sqlalchemy", "fastapi"} <= needed
    assert needed - locked - {"jobtape"} == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_packages_of_user_do_not_shadow_jobtape(up: str, project: Path) -> None:
    with httpx.Client(base_url=up, timeout=LIMIT, trust_env=False) as client:
        order = {"type": "order", "payload": {"pieces": 3}}
        # The projector creates the tape, and may start later than the API.
        until(lambda: client.get("/health/ready").status_code == 200, "all parts are ready")
        assert "<title>Jobtape</title>" in client.get("/").text
        answer = client.post("/jobs", json=order)
        assert answer.status_code == 202, answer.text
        path = answer.headers["location"]
        until(lambda: client.get(path).json().get("state") in ("succeeded", "failed"), "the job ends")
        job = client.get(path).json()
    assert job["state"] == "succeeded", json.dumps(job["error"])
    assert job["result"]["price"] == 15
    assert all(Path(file).is_relative_to(project) for file in job["result"]["files"])


def test_new_project_works_at_once(python: Path, tmp_path: Path, broker_url: str, make_topology: MakeTopology) -> None:
    """Follow the README of a new project, with the wheel."""
    installation = installation_in(tmp_path, **environment_for(broker_url, make_topology()))
    env = {name: value for name, value in installation.env.items() if name not in ("JOBTAPE_JOBS", "DATABASE_URL")}
    bin_folder = str(python.parent)
    subprocess.run([f"{bin_folder}/jobtape", "new", "my-shop"], cwd=tmp_path, env=env, check=True)
    project = tmp_path / "my-shop"
    make = ["make", "--silent", f"BIN={bin_folder}"]
    tested = subprocess.run(
        [*make, "test"], cwd=project, env=env, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout

    app_port = free_port(avoid={installation.port})
    run, app = (Program([*make, *target], env, project) for target in (["run"], ["app", f"PORT={app_port}"]))
    try:
        run.line_with("worker ", "taking jobs")
        app.line_with("Application startup complete")
        with httpx.Client(base_url=f"http://127.0.0.1:{app_port}", timeout=LIMIT, trust_env=False) as client:
            until(lambda: client.get("/jobtape/health/ready").status_code == 200, "all parts are ready")
            answer = client.post("/greetings", params={"name": "Ada"})
            assert answer.status_code == 202, answer.text
            job = client.get(answer.headers["location"], headers={"Prefer": "wait=30"}).json()
        assert (job["state"], job["result"]) == ("succeeded", "Hello, Ada! ")
    finally:
        app.close()
        run.close()
