"""Asks PyPI's advisories about pinned packages: python -m tests.support.audited constraints.txt.

Ends with 1 where a package has a known vulnerability. Where the advisories can't be reached, as on
a machine with a mirror of the index alone, it says that nothing was audited.
"""

from __future__ import annotations

import json
import subprocess
import sys

COMMAND = ("--disable-pip", "--no-deps", "--format", "json", "--progress-spinner", "off")


def main(pinned: str) -> int:
    """Audit a file of ``NAME==VERSION`` lines."""
    command = [sys.executable, "-m", "pip_audit", *COMMAND, "--requirement", pinned]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if not asked.stdout:
        print(asked.stderr, file=sys.stderr)
        return asked.returncode
    packages = json.loads(asked.stdout)["dependencies"]
    known = [one for one in packages if "vulns" in one]
    for one in known:
        for found in one["vulns"]:
            print(
                f"{one['name']} {one['version']}: {found['id']}, mended in {found['fix_versions']}"
            )
    if not known:
        print(f"pip-audit: NOT audited: no advisories of {len(packages)} packages in reach")
        return 0
    bad = sum(bool(one["vulns"]) for one in known)
    print(f"pip-audit: {bad} of {len(known)} packages with known vulnerabilities")
    if len(known) < len(packages):
        print(f"pip-audit: {len(packages) - len(known)} packages NOT audited")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
