"""`make audit`: the licences of what is installed with tinylm, and what pip-audit's report says."""

from __future__ import annotations

from pathlib import Path

from tests.audit import installed_with, is_copyleft, licence_of, vulnerabilities

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def test_what_is_installed_includes_extras_and_what_they_need() -> None:
    names = {package.name.lower() for package in installed_with("tinylm")}
    assert {"tinylm", "torch", "numpy", "fastapi", "starlette", "openpyxl", "et_xmlfile"} <= names
    assert not {"pytest", "ruff", "hypothesis"} & names


def test_the_page_names_every_copyleft_package() -> None:
    found = [package.name for package in installed_with("tinylm") if is_copyleft(licence_of(package))]
    assert found  # certifi, at least
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in found if f"`{name}`" not in page] == []


def test_licences() -> None:
    texts = {"GPL-3.0-or-later": True, "Mozilla Public License 2.0 (MPL 2.0)": True, "MPL-2.0 AND MIT": True}
    texts |= {"MIT": False, "Apache-2.0": False, "BSD-3-Clause": False, "MIT-CMU": False, "ISC": False}
    assert {text: is_copyleft(text) for text in texts} == texts
    assert "Apache" in licence_of(next(p for p in installed_with("tinylm") if p.name == "tinylm"))


def test_a_report_of_pip_audit() -> None:
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]},
            {"name": "b", "version": "1", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    }
    assert vulnerabilities(report) == (2, ["a 1: X-1, mended in 2"])
