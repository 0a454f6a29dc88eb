"""Loads the job types from the modules that ``--jobs`` or ``JOBTAPE_JOBS`` names."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from jobtape.jobs import JobType
from jobtape.schemas.errors import JobtapeError, JobTypeInvalid
from jobtape.schemas.job_types.declared import job_types_in
from jobtape.schemas.job_types.job_type import BUILTIN_PREFIX, RESERVED_QUEUES
from jobtape.schemas.job_types.signature import where_of


def load_job_types(modules: Iterable[str], app_dir: Path | None = None) -> dict[str, JobType]:
    """Import the modules and return their job types by name. ``app_dir`` is added to the import path.

    Raises JobtapeError when a module does not exist or has no job types, or two job types have the same name. An error
    that a module raises on import is not changed, so that its author sees the traceback.
    """
    if app_dir is not None and (path := str(app_dir.resolve())) not in sys.path:
        sys.path.insert(0, path)
    found: dict[str, JobType] = {}
    for name in modules:
        types = job_types_in(_module(name), JobType)
        if not types:
            raise JobtapeError(f"no job types in {name}: decorate a function there with @jobtape.job(...)")
        for job_type in types:
            if job_type.name.startswith(BUILTIN_PREFIX) or job_type.queue in RESERVED_QUEUES:
                raise JobTypeInvalid(
                    f"{where_of(job_type.function)}: job types called {BUILTIN_PREFIX}… and the queues "
                    f"{' and '.join(sorted(RESERVED_QUEUES))} are reserved for Jobtape: choose another name"
                )
            known = found.setdefault(job_type.name, job_type)
            if known is not job_type:
                both = f"{where_of(known.function)} and {where_of(job_type.function)}"
                raise JobTypeInvalid(f"two job types are called {job_type.name!r}: {both}; rename one")
    return found


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise JobtapeError(
                f"there is no module {name} to load jobs from: check --jobs / JOBTAPE_JOBS, and --app-dir, the folder "
                "to import it from"
            ) from None
        raise
