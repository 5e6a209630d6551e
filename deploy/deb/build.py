"""Builds outstation_<version>_all.deb: one file for amd64, arm64 and armhf, and for each Python from 3.11 to 3.13.

python deploy/deb/build.py OUTDIR [--version VERSION]    (`make deb`; VERSION: for a test of an upgrade)

A compiled module carries Python's version and the architecture in its file's name, and Python loads the one that is
meant for it. So the wheels of all of them are unpacked into one folder, and dpkg knows each file: nothing is downloaded
or unpacked on the board (docs/decisions/062-one-package-for-all-boards.md). Times in it are those of the last commit.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from functools import cache
from pathlib import Path

from packaging.markers import Marker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

PYTHONS = ("3.11", "3.12", "3.13")
"""Debian 12 and Raspberry Pi OS 12, Ubuntu 24.04, Debian 13."""
MACHINES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "armv7l": "arm-linux-gnueabihf"}
"""What uname -m says, and what names a compiled module there (sysconfig's EXT_SUFFIX)."""
GLIBC = range(17, 37)
"""Wheels for glibc 2.17 to 2.36, which is Debian 12's (PEP 600)."""
LEFT_OUT = {"iotcore", "psutil"}
"""The demo's broker, which a board does not need; and what Debian has itself, for 32-bit ARM too."""
NO_WHEEL = {"armv7l": {"cffi", "cryptography", "pycparser"}}
"""cffi has none there, so what needs it (fleet, enrol) is left out."""
PREFIX = "opt/outstation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--version", help="instead of the agent's own")
    arguments = parser.parse_args()
    os.environ["SOURCE_DATE_EPOCH"] = epoch = output("git", "-C", str(ROOT), "log", "-1", "--format=%ct").strip()
    arguments.outdir.mkdir(parents=True, exist_ok=True)
    cache = arguments.outdir / "deb-wheels"
    with tempfile.TemporaryDirectory(prefix="outstation-deb-") as folder:
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        packages = root / PREFIX / "lib/python3/site-packages"
        (own,) = build_wheel(Path(folder))
        unpack(own, packages, "")
        for python in PYTHONS:
            for machine, triplet in MACHINES.items():
                wheels = download(python, machine, cache / f"{python}-{machine}", Path(folder))
                for wheel in wheels:
                    unpack(wheel, packages, f".cpython-{python.replace('.', '')}-{triplet}.so")
        version = (
            arguments.version or re.search(r'__version__ = "([^"]+)"', (ROOT / "agent/__init__.py").read_text())[1]
        )  # type: ignore[index]
        lay_out(root, packages)
        control(root, version)
        for path in sorted(root.rglob("*"), reverse=True):
            os.utime(path, (int(epoch), int(epoch)), follow_symlinks=False)
        deb = arguments.outdir / f"outstation_{version}_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(deb)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    print(f"{deb}: {deb.stat().st_size / 1e6:.1f} MB")


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def build_wheel(folder: Path) -> list[Path]:
    command = [
        sys.executable,
        "-I",
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder / "own"),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the wheel cannot be built:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return list((folder / "own").glob("*.whl"))


# ---- what it depends on


def wanted(python: str, machine: str) -> Iterator[str]:
    """The pins, with their hashes, of all that the agent uses with its extras: what requirements-dev.txt has of it."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    pins: dict[str, tuple[str, str]] = {}
    for entry in (ROOT / "requirements-dev.txt").read_text().replace("\\\n", " ").splitlines():
        requirement, _, hashes = entry.partition(" --hash")
        pin, _, marker = requirement.partition(";")
        if pin and (not marker.strip() or Marker(marker).evaluate({**environment, "sys_platform": "linux"})):
            pins[normal(pin.partition("==")[0])] = (pin.strip(), f" --hash{hashes}")
    for name in sorted((needed() & pins.keys()) - LEFT_OUT - NO_WHEEL.get(machine, set())):
        yield "".join(pins[name])


@cache
def needed() -> set[str]:
    """With every extra, by what pyproject.toml calls them."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {normal(one) for one in output(sys.executable, "-I", "-c", NEEDED, *extras).split()}


NEEDED = """
import sys
from importlib.metadata import PackageNotFoundError, requires
from packaging.requirements import Requirement
seen, todo = set(), [("outstation", extra) for extra in ("", *sys.argv[1:])]
while todo:
    name, extra = todo.pop()
    try:
        found = requires(name) or []
    except PackageNotFoundError:
        continue
    for one in map(Requirement, found):
        if (one.marker is None or one.marker.evaluate({"extra": extra})) and one.name not in seen:
            seen.add(one.name)
            todo.append((one.name, ""))
print(*seen)
"""
"""Walks what installed distributions say that they need; isolated, as this file's folder is on our own path."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def download(python: str, machine: str, kept: Path, folder: Path) -> list[Path]:
    """The wheels, from the cache where one is there with a pinned hash."""
    kept.mkdir(parents=True, exist_ok=True)
    there = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in kept.glob("*.whl")}
    found: list[Path] = []
    missing: list[str] = []
    for pin in wanted(python, machine):
        one = next((there[value] for value in re.findall(r"sha256:([0-9a-f]{64})", pin) if value in there), None)
        found.append(one) if one else missing.append(pin)
    if missing:
        requirements = folder / f"requirements-{python}-{machine}.txt"
        requirements.write_text("\n".join(missing) + "\n")
        platforms = [f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in GLIBC)]
        command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        command += [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
        command += [f"--platform={platform}" for platform in platforms]
        fresh = folder / f"wheels-{python}-{machine}"
        done = subprocess.run([*command, "--dest", str(fresh), "--requirement", str(requirements)], check=False)
        if done.returncode:
            sys.exit(f"not every wheel for Python {python} on {machine} could be had (pip says above which)")
        found += [Path(shutil.copy2(wheel, kept)) for wheel in fresh.glob("*.whl")]
    return sorted(found)


def unpack(wheel: Path, packages: Path, suffix: str) -> None:
    """Into one folder with all others. suffix: what compiled modules end with for this Python and architecture."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(("/RECORD", "/")) or "/sboms/" in name or ".data/" in name:
                continue  # what is installed is dpkg's to know: it has its own sums of it
            target = (
                packages / re.sub(r"(\.abi3)?\.so$", suffix, name) if name.endswith(".abi3.so") else packages / name
            )
            if name.endswith(".so") and not target.name.endswith(suffix):
                sys.exit(f"{wheel.name}: {name} does not say which Python and architecture it is for ({suffix})")
            data = archive.read(name)
            if target.exists() and ".dist-info/" not in name and target.read_bytes() != data:
                sys.exit(f"{wheel.name}: {name} differs between the wheels: they cannot share a folder")
            same = [path for path in target.parent.glob("*.so") if path.read_bytes() == data] if suffix else []
            if same and not target.exists() and name.endswith(".abi3.so"):
                target.symlink_to(same[0].name)  # the stable ABI: one module for all Pythons
            elif not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    for info in packages.glob("*.dist-info"):
        (info / "INSTALLER").write_text("dpkg\n")


# ---- the package


def lay_out(root: Path, packages: Path) -> None:
    def put(source: Path | str, target: str, mode: int = 0o644) -> None:
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source) if isinstance(source, str) else shutil.copyfile(source, path)
        path.chmod(mode)

    prefix = root / PREFIX
    put(HERE / "pyvenv.cfg", f"{PREFIX}/pyvenv.cfg")
    put(HERE / "launcher", f"{PREFIX}/bin/outstation", 0o755)
    (prefix / "bin/python").symlink_to("/usr/bin/python3")
    for python in PYTHONS:
        (prefix / f"lib/python{python}").symlink_to("python3")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/outstation").symlink_to("/opt/outstation/bin/outstation")
    put(ROOT / "deploy/outstation.toml", "etc/outstation/outstation.toml")
    put(ROOT / "agent/service/outstation.service", "usr/lib/systemd/system/outstation.service")
    put(ROOT / "deploy/60-outstation.rules", "usr/lib/udev/rules.d/60-outstation.rules")
    put(HERE / "outstation.sysusers", "usr/lib/sysusers.d/outstation.conf")
    put(HERE / "outstation.rtupdate", "usr/share/python3/runtime.d/outstation.rtupdate", 0o755)
    for shell, target in (
        ("bash", "usr/share/bash-completion/completions/outstation"),
        ("zsh", "usr/share/zsh/vendor-completions/_outstation"),
        ("fish", "usr/share/fish/vendor_completions.d/outstation.fish"),
    ):
        put(output(sys.executable, "-m", "agent", "completion", shell), target)
    (root / "usr/share/man/man1").mkdir(parents=True)
    page = output(sys.executable, str(HERE / "manpage.py")).encode()
    (root / "usr/share/man/man1/outstation.1.gz").write_bytes(gzip.compress(page, mtime=0))
    doc = "usr/share/doc/outstation"
    for source in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "docs/drivers").glob("*.md")),
    ):
        put(source, f"{doc}/{source.relative_to(ROOT)}".replace("/docs/", "/"))
    for source in sorted((ROOT / "deploy/outstation.service.d").glob("*.conf")):
        put(source, f"{doc}/examples/{source.name}")
    put(copyright_of(packages), f"{doc}/copyright")
    (root / doc / "changelog.gz").write_bytes(gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))
    for path in root.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def copyright_of(packages: Path) -> str:
    """Ours, and for each package that is in it its licence in its own words; the texts stand beside its code."""
    lines = ["Outstation is licensed under the Apache License 2.0: /usr/share/common-licenses/Apache-2.0", ""]
    lines += [f"With it come, below /{PREFIX}/lib/python3/site-packages:", ""]
    for info in sorted(packages.glob("*.dist-info")):
        metadata = HeaderParser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
        named = [
            one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier", []) if one.startswith("License ::")
        ]
        words = metadata["License-Expression"] or "; ".join(named) or (metadata["License"] or "").split("\n")[0]
        lines.append(f"  {metadata['Name']} {metadata['Version']}: {words}  ({info.name})")
        if not words:
            sys.exit(f"{metadata['Name']} does not say under which licence it is")
    return "\n".join(lines) + "\n"


def control(root: Path, version: str) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    debian = root / "DEBIAN"
    debian.mkdir(mode=0o755)
    last = PYTHONS[-1].split(".")
    text = (
        (HERE / "control")
        .read_text()
        .format(
            version=version,
            installed_kib=sum(-(-path.stat().st_size // 1024) for path in files),
            oldest=PYTHONS[0],
            after=f"{last[0]}.{int(last[1]) + 1}",
        )
    )
    (debian / "control").write_text(text)
    (debian / "conffiles").write_text("/etc/outstation/outstation.toml\n")
    sums = (f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files)
    (debian / "md5sums").write_text("".join(sums))
    for name in ("preinst", "postinst", "prerm", "postrm"):
        shutil.copy(HERE / name, debian / name)
        (debian / name).chmod(0o755)


if __name__ == "__main__":
    main()
