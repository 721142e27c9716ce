"""Check the lock file: every package pinned with hashes, and none older than its known holes allow.

python tests/audit.py            offline: the versions below
python tests/audit.py --online   also pip-audit, against the database of published advisories
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from packaging.version import Version

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
AT_LEAST = {
    "ray": ("2.59.0", "CVE-2025-62593, CVE-2026-27482, CVE-2026-41486, CVE-2026-57516; local clusters without a token"),
    "torch": ("2.11.0", "CVE-2025-32434, CVE-2026-24747, CVE-2026-4538"),
    "pillow": ("12.3.0", "CVE-2026-25990, CVE-2026-40192, CVE-2026-42308 to -42311"),
    "pyyaml": ("5.4", "CVE-2020-1747, CVE-2020-14343"),
}
NEVER = {  # CVE-2026-44484: these steal credentials
    "lightning": ("2.6.2", "2.6.3"),
    "pytorch-lightning": ("2.6.2", "2.6.3"),
}


def pinned(text: str) -> dict[str, tuple[str, int]]:
    """Return each package's version and number of hashes."""
    found = {}
    for entry in re.split(r"\n(?=[a-zA-Z0-9])", text):
        match = re.match(r"([a-zA-Z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", entry)
        if match:
            found[re.sub(r"[-_.]+", "-", match[1]).lower()] = (match[2], entry.count("--hash=sha256:"))
    return found


def problems(text: str) -> list[str]:
    """Return what is wrong with a lock file's text, in words."""
    packages = pinned(text)
    found = [f"{name} {version} has no hash" for name, (version, hashes) in packages.items() if not hashes]
    loose = [line for line in text.splitlines() if re.match(r"[a-zA-Z0-9]", line) and "==" not in line]
    found += [f"not pinned: {line}" for line in loose]
    for name, (least, why) in AT_LEAST.items():
        if name not in packages:
            found.append(f"{name} is not in the lock file")
        elif Version(packages[name][0]) < Version(least):
            found.append(f"{name} {packages[name][0]} is older than {least} ({why})")
    for name, versions in NEVER.items():
        if name in packages and packages[name][0] in versions:
            found.append(f"{name} {packages[name][0]} is malicious")
    return found


def advisories() -> int:
    """Ask pip-audit; print what it found, and of how many packages it could find nothing out; return the status."""
    options = ["--require-hashes", "--disable-pip", "--progress-spinner=off", "--timeout=10", "--format=json"]
    audit = [sys.executable, "-m", "pip_audit", *options, "--requirement", str(LOCK)]
    answer = subprocess.run(audit, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(answer.stdout)["dependencies"]
    except ValueError:
        print(f"audit: pip-audit gave no answer: {answer.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return 1
    unknown = sum("skip_reason" in package for package in packages)
    known = [(p["name"], p["version"], hole["id"]) for p in packages for hole in p.get("vulns", [])]
    for name, version, hole in known:
        print(f"audit: {name} {version} has {hole}", file=sys.stderr)
    reached = "" if unknown < len(packages) else ": its database could not be reached"
    print(f"audit: pip-audit looked {len(packages) - unknown} packages up, {unknown} it could not{reached}")
    return int(bool(known))


def main() -> int:
    """Print what is wrong; return the exit status."""
    text = LOCK.read_text()
    found = problems(text)
    for problem in found:
        print(f"audit: {problem}", file=sys.stderr)
    if found:
        return 1
    print(f"audit: {len(pinned(text))} packages pinned with hashes, none below its minimum")
    return advisories() if "--online" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
