"""What is installed with tinylm: under which licences, and with which known vulnerabilities.

    python -m tests.audit [PIP_AUDIT]

The list holds every package that tinylm needs, those of its extras included (`dev` left out). PIP_AUDIT, the
program pip-audit, asks the package index about all that is installed. The exit code is 1 where it finds
something or cannot ask.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sysconfig
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement

COPYLEFT = re.compile(r"GPL|MPL|Mozilla|EPL|EUPL|CDDL|OSL|SSPL|CC-BY-SA|General Public", re.IGNORECASE)


def installed_with(name: str) -> list[Distribution]:
    """A package and all that it needs as far as it is installed, the extras other than `dev` included."""
    root = distribution(name)
    extras = set(root.metadata.get_all("Provides-Extra") or []) - {"dev"}
    found: dict[str, Distribution] = {}

    def visit(name: str, extras: set[str]) -> None:
        try:
            package = distribution(name)
        except PackageNotFoundError:  # of an extra that is not installed
            return
        key = re.sub(r"[-_.]+", "-", package.name).lower()
        known, found[key] = key in found, package
        if known and not extras:
            return
        for line in package.requires or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                visit(need.name, set(need.extras))

    visit(name, extras)
    return [found[key] for key in sorted(found)]


def licence_of(package: Distribution) -> str:
    """Its licence as its metadata has it."""
    metadata = package.metadata
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    text = (metadata.get("License") or "").strip().split("\n")[0]
    return metadata.get("License-Expression") or ", ".join(classifiers) or text or "not stated"


def is_copyleft(licence: str) -> bool:
    """Whether a licence asks that changes, or what includes the work, are passed on under it too."""
    return COPYLEFT.search(licence) is not None


def vulnerabilities(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Of pip-audit's JSON: the number of packages that the index knew, and a line for each vulnerability."""
    audited = [package for package in report["dependencies"] if "skip_reason" not in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, mended in"
        f" {', '.join(found['fix_versions']) or 'no version'}"
        for package in audited
        for found in package["vulns"]
    ]
    return len(audited), lines


def ask(program: str) -> int:
    """Let pip-audit ask about all that is installed here; returns the exit code."""
    command = [
        program,
        "--path",
        sysconfig.get_path("purelib"),
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    finished = subprocess.run(command, capture_output=True, text=True)
    try:
        audited, lines = vulnerabilities(json.loads(finished.stdout))
    except ValueError:
        said = finished.stderr.strip().splitlines() or ["it said nothing"]
        print(f"\npip-audit could not ask the package index (no network?): {said[-1]}")
        return 1
    if not audited:
        print("\npip-audit reached no index that knows of vulnerabilities: nothing has been audited.")
        return 1
    print("\n".join([f"\n{audited} packages audited, {len(lines)} vulnerabilities known", *lines]))
    return bool(lines)


def main() -> None:
    """Print the list, and what pip-audit says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pip_audit", nargs="?", help="path of the program")
    arguments = parser.parse_args()
    packages = installed_with("tinylm")
    for package in packages:
        mark = "  (copyleft)" if is_copyleft(licence_of(package)) else ""
        print(f"{package.name:<28} {package.version:<14} {licence_of(package)}{mark}")
    copyleft = [package.name for package in packages if is_copyleft(licence_of(package))]
    print(f"\n{len(packages)} packages; copyleft: {', '.join(copyleft) or 'none'}")
    if arguments.pip_audit:
        raise SystemExit(ask(arguments.pip_audit))


if __name__ == "__main__":
    main()
