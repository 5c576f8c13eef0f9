"""A corpus to vectors on disk, in shards that a killed run keeps and the next run finds again.

A shard is a safetensors file of vectors whose header names their items. Each is whole or absent.
What an item's vector depends on is its key: content, order of fields, size and time of its files;
what else it depends on, weights and configuration, is the folder's name.
"""

# Shapes: N items, D embedding size.

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import numpy as np

from .media import MediaError
from .prompts import ItemError, files_of
from .records import content_id

__all__ = ["StoredVectors", "encode_items", "model_key"]

SHARD_ITEMS = 512


@dataclass(frozen=True)
class StoredVectors:
    """Vectors [N, D] that stay on disk until rows of them are asked for."""

    shards: list[Path]
    places: np.ndarray  # [N, 2] shard and row in it; -1 for an item that could not be read
    bad: dict[int, MediaError]  # what was wrong, by item

    def rows(self, items: np.ndarray) -> np.ndarray:
        """[len(items), D] float32, every shard read once."""
        shard, row = self.places[items].T
        if (shard < 0).any():
            raise ValueError(f"item {items[shard.argmin()]} has no vector: it could not be read")
        parts, order = [], np.argsort(shard, kind="stable")
        for number in np.unique(shard):
            wanted = row[order[shard[order] == number]]
            parts.append(_load(self.shards[number])[wanted])
        vectors = np.concatenate(parts)
        result = np.empty_like(vectors)
        result[order] = vectors
        return result


def model_key(embedder) -> str:
    """16 hex digits of what decides an embedder's vectors: all of its weights and its `config`."""
    import torch

    config = getattr(embedder, "config", None)
    config = asdict(config) if is_dataclass(config) else {}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, weight in sorted(embedder.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        values = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().data)
    return digest.hexdigest()[:16]


def encode_items(embedder, items: Sequence[dict], folder: str | Path,
                 media_root: str | Path = ".", progress: bool = True,
                 where: Callable[[int], str] | None = None) -> StoredVectors:  # fmt: skip
    """Vectors of items, those embedded that `folder` does not have yet.

    Args
        embedder    `.embed(items, media_root=..., progress=...)` gives [items, D] unit vectors;
                    `.state_dict()` and `.config` tell its vectors from those of others
        items       parsed again whenever they are asked for, so any sequence will do
        media_root  folder that media paths are relative to
        where       how errors name an item, from its number
    An unreadable medium makes its item bad; an item that does not fit is an ItemError.
    Shards are of SHARD_ITEMS items: a killed run loses at most the one it was working on.
    """
    from tqdm import tqdm

    folder = Path(folder, model_key(embedder))
    folder.mkdir(parents=True, exist_ok=True)
    keys = [_item_key(item, Path(media_root)) for item in items]
    missing = _first_of_each(keys, _known(folder))
    with tqdm(total=len(missing), disable=not progress, unit="item", desc="embed") as bar:
        for start in range(0, len(missing), SHARD_ITEMS):
            numbers = missing[start : start + SHARD_ITEMS]
            names = [where(n) if where else f"item {n}" for n in numbers]
            vectors, bad = _embed(embedder, [items[n] for n in numbers], names, media_root)
            _save(folder, [keys[n] for n in numbers], vectors, bad)
            bar.update(len(numbers))
    return _stored(folder, keys)


def _item_key(item: dict, root: Path) -> str:
    stamps = []
    for path in files_of(item):
        try:
            stat = (root / path).stat()
            stamps.append([stat.st_size, stat.st_mtime_ns])
        except OSError:
            stamps.append([])
    text = json.dumps([content_id(item), list(item), stamps])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _first_of_each(keys: Iterable[str], known: Container[str]) -> list[int]:
    """Where each key that is not known comes first."""
    seen: set[str] = set()
    numbers = []
    for number, key in enumerate(keys):
        if key not in known and key not in seen:
            seen.add(key)
            numbers.append(number)
    return numbers


def _embed(
    embedder, items: list[dict], names: list[str], root
) -> tuple[np.ndarray, dict[int, str]]:
    """Vectors of the items that can be read, and the message of each of those that cannot.

    One bad medium fails the whole call, so the list is halved until it is alone.
    """
    try:
        return embedder.embed(items, media_root=root, progress=False), {}
    except (MediaError, ItemError) as error:
        if len(items) == 1:
            message = str(error.__cause__ or error)
            if isinstance(error, ItemError):
                raise ItemError(f"{names[0]}: {message}") from error
            return np.empty((0, 0), dtype=np.float32), {0: message}
    middle = len(items) // 2
    (left, bad), (right, others) = (
        _embed(embedder, items[half], names[half], root)
        for half in (slice(middle), slice(middle, None))
    )
    bad |= {number + middle: message for number, message in others.items()}
    return np.concatenate([half for half in (left, right) if len(half)] or [left]), bad


def _save(folder: Path, keys: list[str], vectors: np.ndarray, bad: dict[int, str]) -> None:
    """One shard, named by its items. Its vectors are those of the keys that are not bad."""
    from safetensors.numpy import save_file

    good = [key for number, key in enumerate(keys) if number not in bad]
    header = {
        "keys": json.dumps(good),
        "bad": json.dumps({keys[number]: message for number, message in bad.items()}),
    }
    path = folder / f"{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:16]}.safetensors"
    partial = path.with_name(path.name + ".partial")
    save_file({"vectors": np.ascontiguousarray(vectors, np.float32)}, partial, header)
    partial.replace(path)


def _known(folder: Path) -> dict[str, tuple[int, int] | str]:
    """Key -> (shard, row), or what was wrong with the item."""
    known: dict[str, tuple[int, int] | str] = {}
    for number, path in enumerate(_shards(folder)):
        header = _header(path)
        known |= json.loads(header["bad"])
        known |= {key: (number, row) for row, key in enumerate(json.loads(header["keys"]))}
    return known


def _stored(folder: Path, keys: Iterable[str]) -> StoredVectors:
    known = _known(folder)
    found = [known[key] for key in keys]
    places = [(-1, -1) if isinstance(each, str) else each for each in found]
    bad = {n: MediaError(each) for n, each in enumerate(found) if isinstance(each, str)}
    return StoredVectors(_shards(folder), np.array(places, dtype=np.int32).reshape(-1, 2), bad)


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _header(path: Path) -> dict[str, str]:
    return _opened(path, lambda file: file.metadata())


def _load(path: Path) -> np.ndarray:
    return _opened(path, lambda file: file.get_tensor("vectors"))


def _opened(path: Path, read):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return read(file)
    except SafetensorError as error:
        raise ValueError(f"{path}: no whole shard of vectors ({error}); remove it") from error
