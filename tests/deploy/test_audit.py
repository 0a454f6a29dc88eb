"""Tests ``make sbom`` and ``make audit``, without the internet."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools import audit, sbom
from tools.clone import ROOT


def test_bill_of_materials_has_each_locked_package_with_its_hashes(tmp_path: Path) -> None:
    document = sbom.sbom()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {each["name"]: each["version"] for each in document["components"]} == locked
    assert document["metadata"]["component"]["name"] == "jobtape"
    assert "timestamp" not in document["metadata"]


def test_audit_that_cannot_reach_the_database_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens at the address that is given as the database's."""
    found = audit.audit("requirements.lock", "--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:1/")
    assert isinstance(found, str)
    assert audit.report("requirements.lock", found) == audit.NOT_CHECKED
    assert "requirements.lock: NOT CHECKED" in capsys.readouterr().out


FINE: dict[str, Any] = {"name": "a", "version": "1", "vulns": []}


@pytest.mark.parametrize(
    ("dependencies", "code", "text"),
    [
        ([FINE], 0, "no vulnerability is known in 1 packages"),
        ([FINE, {"name": "b", "skip_reason": "unknown"}], 2, "NOT CHECKED, b: unknown"),
        ([{"name": "b", "skip_reason": "unknown"}], 2, "lock: NOT CHECKED, the database"),
        ([{**FINE, "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}], 1, "a 1 has CVE-1; fixed in: 2"),
    ],
)
def test_findings_decide_the_exit_code(
    dependencies: list[dict[str, Any]], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.report("lock", {"dependencies": dependencies}) == code
    assert text in capsys.readouterr().out
