"""Frees what handlers left behind, at the end of the session."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def freed_tasks() -> Iterator[None]:
    """Free the tasks that stopped event loops left pending.

    If they are freed later, while Python 3.11 parses a module, it raises SystemError (recursion depth mismatch).
    """
    yield
    gc.collect()
