"""Audit of the dependencies, a step of `make check`: pins, licences, known vulnerabilities.

Pins and licences are judged offline, from what is installed. Known vulnerabilities need `pip-audit` and the network:
where either is missing, a line says that they were not looked up, and the step goes on.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
#: Words of licences that do not go with Apache-2.0 in a program that is passed on.
REFUSED = re.compile(r"\b(A?GPL|GNU (Affero )?General Public|SSPL|Commons Clause|Non-?Commercial|CC[- ]BY[- ]NC)", re.I)
ALLOWED = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Unlicense|Zlib|HPND|CC0|0BSD|LGPL|Lesser|"
    r"Public Domain|Artistic|CNRI|Free To Use|FSFAP|NCSA|BSL|OpenSSL|Unicode)",
    re.I,
)
#: Distributions whose metadata names no licence, read by hand in their sources.
READ = {
    "pyrate-limiter": "MIT",
    "tensorboard-data-server": "Apache-2.0",
}
#: What comes with torch's build for a GPU: not pinned and not shipped by us, under terms of its maker.
OF_THE_GPU = ("nvidia-", "cuda-", "triton")
NETWORK = ("ConnectionError", "Max retries", "Name or service", "resolve", "timed out", "ProxyError", "SSLError")


def name_of(text: str) -> str:
    """One spelling for all."""
    return re.sub(r"[-_.]+", "-", text).lower()


def closure(extras: tuple[str, ...]) -> Iterator[metadata.Distribution]:
    """Every installed distribution that the project needs with these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    waiting, seen = [Requirement(one) for one in wanted], set()
    while waiting:
        item = waiting.pop()
        if (name := name_of(item.name)) in seen or name == "dopaint" or name.startswith(OF_THE_GPU):
            continue
        seen.add(name)
        try:
            found = metadata.distribution(item.name)
        except metadata.PackageNotFoundError:
            continue  # of another platform, or an extra that is not installed
        yield found
        for text in found.requires or ():
            below = Requirement(text)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in ("", *item.extras)):
                waiting.append(below)


def licence_of(one: metadata.Distribution) -> str:
    """What the metadata says: the expression, the classifiers, or the licence field."""
    facts = one.metadata
    words = [facts.get("License-Expression") or ""]
    named = [text.rpartition("::")[2].strip() for text in facts.get_all("Classifier") or () if "License" in text]
    words += [text for text in named if text != "OSI Approved"]
    if not any(words):
        words.append((facts.get("License") or "").strip().split("\n")[0][:80])
    return " / ".join(filter(None, words)) or READ.get(name_of(facts["Name"]), "")


def judged(pins: dict[str, str], extras: tuple[str, ...]) -> tuple[list[str], int]:
    """Sentences about what is wrong, and how many distributions were looked at."""
    wrong, n = [], 0
    for one in closure(extras):
        name, n = name_of(one.metadata["Name"]), n + 1
        version, licence = one.version.partition("+")[0], licence_of(one)
        if name not in pins:
            wrong.append(f"{name} {version} is not pinned in constraints.txt: add it")
        elif pins[name] != version:
            wrong.append(f"{name} {version} is installed, constraints.txt says {pins[name]}: make install")
        parts = [part for part in re.split(r"\s+OR\s+| / ", licence) if part]
        if not parts:
            wrong.append(f"{name} names no licence: read its sources and add it to READ")
        elif not any(ALLOWED.search(part) and not REFUSED.search(part.replace("LGPL", "")) for part in parts):
            wrong.append(f"{name} is under {licence!r}, which does not go with Apache-2.0: replace it")
    return wrong, n


def vulnerabilities() -> tuple[str, bool]:
    """What pip-audit says, or why it was not asked; and whether it found something."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt"), "--disable-pip"]
    try:
        metadata.distribution("pip-audit")
    except metadata.PackageNotFoundError:
        return "not looked up: pip-audit is not installed (pip install pip-audit)", False
    try:
        done = subprocess.run(
            [*command, "--no-deps", "--timeout", "15"], capture_output=True, text=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        return "not looked up: the network did not answer in time", False
    if done.returncode == 0:
        return "none known", False
    if any(word in done.stderr for word in NETWORK):
        return "not looked up: the network cannot be reached", False
    return (done.stdout + done.stderr).strip(), True


def main() -> int:
    """Prints what was found; 1 where something is wrong."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {name_of(a): b for a, _, b in (line.partition("==") for line in lines if line and line[0] != "#")}
    wrong, n = judged(pins, ("test", "dev", "postgres"))
    sys.stdout.write("".join(f"{line}\n" for line in wrong))
    sys.stdout.write(f"{n} distributions: {len(wrong)} wrong in pin or licence\n")
    words, found = vulnerabilities()
    sys.stdout.write(f"known vulnerabilities: {words}\n")
    return int(bool(wrong) or found)


if __name__ == "__main__":
    sys.exit(main())
