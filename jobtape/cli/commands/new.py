"""``jobtape new``: writes a project with a first job, its test, a compose file and a README."""

import keyword
import re
import sys
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import typer

from jobtape.cli import printing as show
from jobtape.cli.errors import FAILED, OK, CannotStart, WrongUse
from jobtape.cli.options import Json

NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
TAKEN: Final = {"fastapi", "jobtape", "pytest", "tests", "uvicorn"}
"""Names of packages that the project imports itself."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project's name, and its folder: my-project.")],
    folder: Annotated[
        Path | None, typer.Option("--in", metavar="FOLDER", help="The folder in which it is made, by default this one.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a new project: a first job, its test, a FastAPI application, a compose file and a README."""
    package = package_of(name)
    project = (folder or Path()) / name
    try:
        files = write(project, name, package)
    except OSError as error:
        print(f"jobtape: cannot write {project}: {error}", file=sys.stderr)
        return FAILED
    if as_json:
        show.print_json({"folder": str(project), "package": package, "files": files})
    else:
        print(f"{project} has {len(files)} files: read {project / 'README.md'}, then\n")
        print(f"  cd {project}\n  make install test")
    return OK


def package_of(name: str) -> str:
    """Return the name of the project's package. Raises WrongUse."""
    package = name.replace("-", "_")
    if NAME.fullmatch(name) is None:
        raise WrongUse(
            f"{name!r} cannot be a project's name: use small letters, digits and hyphens, such as my-project"
        )
    if keyword.iskeyword(package) or package in TAKEN or package in sys.stdlib_module_names:
        raise WrongUse(f"{name!r} is the name of a package of Python, or of one that the project imports: add a word")
    return package


def write(project: Path, name: str, package: str) -> list[str]:
    """Write all files or nothing, and return their names. Raises CannotStart if the folder exists, and OSError."""
    if project.exists():
        raise CannotStart(f"{project} exists already: choose another name, or another folder with --in")
    values = {"name": name, "package": package, "version": version("jobtape")}
    template = resources.files("jobtape.cli").joinpath("new_project")
    with TemporaryDirectory(dir=project.parent, prefix=f".{name}.") as temporary:
        part = Path(temporary) / name
        files = sorted(_write(template, part, "", values))
        part.rename(project)
    return files


def _write(source: Traversable, target: Path, prefix: str, values: dict[str, str]) -> list[str]:
    """Write the files of a folder of the template. Each is called as in the project, with ``.txt`` after it."""
    target.mkdir()
    written: list[str] = []
    for each in source.iterdir():
        if each.is_dir():
            name = values["package"] if each.name == "package" else each.name
            written += _write(each, target / name, f"{prefix}{name}/", values)
            continue
        name = {"gitignore.txt": ".gitignore"}.get(each.name, each.name.removesuffix(".txt"))
        text = each.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"{{{{ {key} }}}}", value)
        (target / name).write_text(text, encoding="utf-8")
        written.append(prefix + name)
    return written
