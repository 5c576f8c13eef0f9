"""An index on disk: written beside the old one and exchanged for it, read only as it was written.

index.json           configuration, counts, and the checksum of every other file
MODALITY.faiss       the faiss index of each modality
rows.safetensors     the numbers of its candidates
ids.json             ids of all candidates
items.jsonl          the candidates themselves, where `unite index` knew them (see `results`)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.modality import parse_modality
from ..files import file_hash, read_json, replacing_folder, whole_folder, working_in, write_json

__all__ = ["IndexFiles", "check_target", "read_index_files", "write_index_files"]

_NAMES = {"index.json", "rows.safetensors", "ids.json", "items.jsonl"}
_STRAY = {".lock", ".DS_Store"}


class IndexFiles(NamedTuple):
    """What the files of an index hold."""

    ids: Sequence[str]
    parts: Mapping[str, Any]  # modality: faiss index
    rows: Mapping[str, np.ndarray]  # modality: numbers of its candidates
    config: Mapping
    model: str


def write_index_files(folder: str | Path, files: IndexFiles) -> None:
    """Write an index; one that is there stays whole until this one takes its place.

    ValueError if the folder holds other files than an index, InUseError if another process writes
    there, OSError if the disk is full.
    """
    import faiss
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    check_target(folder)
    with working_in(folder), replacing_folder(folder) as partial:
        try:
            for label, index in files.parts.items():
                faiss.write_index(index, str(partial / f"{label}.faiss"))
            rows = {str(int(parse_modality(label))): rows for label, rows in files.rows.items()}
            save_file(rows, partial / "rows.safetensors")
        except (RuntimeError, SafetensorError) as error:  # of faiss, of safetensors
            raise OSError(f"{folder}: cannot be written ({error}); is the disk full?") from None
        text = json.dumps(list(files.ids), ensure_ascii=False)
        (partial / "ids.json").write_text(text, encoding="utf-8")
        noted = {
            "config": dict(files.config),
            "model": files.model,
            "counts": {label: len(rows) for label, rows in files.rows.items()},
            "files": {path.name: file_hash(path) for path in sorted(partial.iterdir())},
        }
        write_json(partial / "index.json", noted, indent=1)


def check_target(folder: str | Path) -> None:
    """ValueError if a folder holds files that are not those of an index."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; choose another folder")
    found = {path.name for path in folder.iterdir()} - _STRAY if folder.is_dir() else set()
    if found and "index.json" not in found:
        raise ValueError(f"{folder}: holds other files than an index; choose another folder")
    others = sorted(name for name in found - _NAMES if not name.endswith(".faiss"))
    if others:
        raise ValueError(
            f"{folder}: holds other files than an index ({others[0]}); choose another folder"
        )


def read_index_files(folder: str | Path) -> IndexFiles:
    """Read what `write_index_files` wrote; ValueError names the file that is not so any more."""
    import faiss
    from safetensors.numpy import load_file

    folder = whole_folder(folder)
    place = folder / "index.json"
    if not place.is_file():
        raise ValueError(f"{folder}: no whole index (no index.json); build and save it again")
    noted = read_json(place)
    try:
        counts, model, sums = noted["counts"], str(noted["model"]), noted["files"]
        config, codes = dict(noted["config"]), {label: parse_modality(label) for label in counts}
        sums["rows.safetensors"], sums["ids.json"], *(sums[f"{label}.faiss"] for label in counts)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{place}: does not describe an index; {_AGAIN}") from None
    for name, checksum in sums.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: is missing; {_AGAIN}")
        if file_hash(path) != checksum:
            raise ValueError(f"{path}: its bytes have changed since it was written; {_AGAIN}")
    try:
        parts = {label: faiss.read_index(str(folder / f"{label}.faiss")) for label in counts}
        stored = load_file(folder / "rows.safetensors")
        rows = {label: stored[str(int(code))] for label, code in codes.items()}
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{folder}: cannot be read ({error}); {_AGAIN}") from None
    files = IndexFiles(read_json(folder / "ids.json"), parts, rows, config, model)
    _check(folder, files, counts)
    return files


_AGAIN = "build and save the index again"


def _check(folder: Path, files: IndexFiles, counts: Mapping[str, int]) -> None:
    """ValueError unless ids, rows, vectors and counts agree."""
    for label, index in files.parts.items():
        found = index.ntotal, len(files.rows[label])
        if found != (counts[label], counts[label]):
            raise ValueError(
                f"{folder}: {found[0]} vectors and {found[1]} rows of {label} instead of "
                f"{counts[label]}; {_AGAIN}"
            )
    rows = np.sort(np.concatenate(list(files.rows.values()) or [np.zeros(0, int)]))
    if not np.array_equal(rows, np.arange(len(files.ids))):
        raise ValueError(
            f"{folder / 'ids.json'}: {len(files.ids)} ids for {len(rows)} vectors; {_AGAIN}"
        )
