"""Shards of vectors on disk: safetensors files with the ids in their headers, written atomically.

`vectors` is [n, D] in one of four number formats and `modality` [n] holds codes of `Modality`; int8
has `scales` [n] as well. Equal contents give equal bytes. The header begins with its own checksum
and holds one of the tensors, so that no changed byte is read as a vector.
"""

# Shapes: n items of a shard, D embedding size.

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..data.modality import Modality
from ..files import read_json, replacing

__all__ = [
    "FORMATS", "Shard", "ShardFolder", "check_shards", "read_header", "read_shard", "shard_files",
    "shard_sums", "truncate", "write_shard",
]  # fmt: skip


FORMATS = ("float32", "float16", "bfloat16", "int8")
_ANEW = "remove it and make it again"
_HEADER = "unite"  # a single entry, as safetensors writes several in no fixed order


@dataclass(frozen=True)
class Shard:
    """Vectors of consecutive items of a corpus.

    ids       of the items that have a vector, in the order of the corpus
    vectors   [n, D] float32
    modality  [n] uint8 codes of `Modality`
    bad       {id: what was wrong} of items without a vector
    noted     further entries of the header
    name      how errors name it; the path of one that was read
    """

    ids: Sequence[str]
    vectors: np.ndarray
    modality: np.ndarray
    bad: Mapping[str, str] = field(default_factory=dict)
    noted: Mapping = field(default_factory=dict)
    name: str = "shard"

    def check(self) -> None:
        """ValueError unless there is one id, vector and modality per item, all of equal size."""
        counts = len(self.ids), len(self.vectors), len(self.modality)
        if len(set(counts)) > 1 or np.ndim(self.vectors) != 2:
            raise ValueError(
                f"{self.name}: {counts[0]} ids, {counts[1]} vectors and {counts[2]} modalities: "
                "give one of each per item"
            )
        codes = np.asarray(self.modality)
        unknown = codes[(codes < 1) | (codes > sum(Modality))]
        if len(unknown):
            raise ValueError(
                f"{self.name}: {unknown[0]} is the code of no modality: "
                "make the shard again from items with text, image or video"
            )


class ShardFolder:
    """Shards of an encoded corpus, read one by one, as often as iterated.

    model  `model_key` of the model that encoded it
    ValueError if the folder holds no corpus that was encoded to its end, or if a shard is missing,
    not of this corpus, or not as it was written.
    """

    def __init__(self, folder: str | Path):
        self.files = shard_files(folder)
        report = Path(folder, "report.json")
        if not self.files or not report.is_file():
            raise ValueError(
                f"{folder}: no finished corpus of vectors (no shards or no report.json); run "
                "`unite encode` to its end"
            )
        noted = read_json(report)
        try:
            self.model, written = str(noted["inputs"]["model"]), dict(noted["files"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{report}: does not list the shards with their checksums; remove it and run "
                "`unite encode` again"
            ) from None
        check_shards(folder, written)
        if missing := sorted(set(written) - {path.name for path in self.files}):
            raise ValueError(
                f"{folder}: {missing[0]} is missing ({len(missing)} of {len(written)} shards); "
                "run `unite encode` again, which makes it anew"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Shard]:
        return map(read_shard, self.files)


def shard_sums(folder: str | Path) -> dict[str, str]:
    """Checksum of each shard of a folder by file name, from its header alone."""
    return {path.name: _opened(path)[2] for path in shard_files(folder)}


def check_shards(folder: str | Path, written: Mapping[str, str]) -> None:
    """ValueError if a shard is there that is not as `shard_sums` gave it; any may be missing."""
    for name, checksum in shard_sums(folder).items():
        path = Path(folder, name)
        if name not in written:
            raise ValueError(f"{path}: no shard of this corpus: remove it")
        if checksum != written[name]:
            raise ValueError(
                f"{path}: another shard than was written, such as a copy: remove it and run "
                "`unite encode` again"
            )


def write_shard(path: str | Path, shard: Shard, number_format: str = "float32") -> None:
    """Write a shard, atomically and flushed to the disk.

    int8 is symmetric per row: round(v / s) with s = max |v| / 127, which changes the cosine of two
    unit vectors by about 1e-3 at D = 256.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if number_format not in FORMATS:
        raise ValueError(f"number format {number_format!r} is none of {', '.join(FORMATS)}")
    replace(shard, name=str(path)).check()
    vectors = torch.from_numpy(np.ascontiguousarray(shard.vectors, dtype=np.float32))
    tensors = {"modality": torch.from_numpy(np.asarray(shard.modality, dtype=np.uint8))}
    if number_format == "int8":
        tensors["scales"] = vectors.abs().amax(1).clamp(min=1e-30) / 127
        tensors["vectors"] = (vectors / tensors["scales"][:, None]).round().to(torch.int8)
    else:
        tensors["vectors"] = vectors.to(getattr(torch, number_format))
    header = {"ids": list(shard.ids), "bad": dict(shard.bad), **shard.noted}
    text = json.dumps(header | {"tensors": _checksum(tensors)}, ensure_ascii=False)
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, {_HEADER: f"{_hash(text)} {text}"})
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written ({error}); is the disk full?") from None


def read_shard(path: str | Path) -> Shard:
    """Read a shard, its vectors as float32; ValueError if the file is not as it was written."""
    header, tensors, _ = _opened(path, read=True)
    if _checksum(tensors) != header.pop("tensors"):
        raise ValueError(f"{path}: its bytes have changed since it was written; {_ANEW}")
    vectors = tensors["vectors"].float()
    if "scales" in tensors:
        vectors *= tensors["scales"][:, None]
    ids, bad = header.pop("ids"), header.pop("bad")
    shard = Shard(ids, vectors.numpy(), tensors["modality"].numpy(), bad, header, str(path))
    shard.check()
    return shard


def read_header(path: str | Path) -> dict:
    """Read `ids`, `bad` and further entries of a shard's header, without the vectors."""
    return _opened(path)[0]


def shard_files(folder: str | Path) -> list[Path]:
    """Shards of a folder in order; empty if there is no folder."""
    return sorted(Path(folder).glob("*.safetensors"))


def truncate(vectors: np.ndarray, dim: int | None) -> np.ndarray:
    """Truncate unit vectors [n, D] to `dim` dimensions and normalise them again (Matryoshka).

    None leaves them as they are. Models not trained for this dimension lose accuracy.
    """
    if dim is None or dim == vectors.shape[1]:
        return vectors
    if not 0 < dim < vectors.shape[1]:
        raise ValueError(f"dim {dim} is not in 1 to {vectors.shape[1]}, the model's size")
    short = vectors[:, :dim]
    return short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)


def _opened(path: str | Path, read: bool = False) -> tuple[dict, dict, str]:
    """Header, tensors if asked for, and the header's checksum, which covers all."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            checksum, _, text = (file.metadata() or {})[_HEADER].partition(" ")
            if checksum != _hash(text):
                raise ValueError("its header has no checksum, or has changed since it was written")
            names = file.keys() if read else ()
            return json.loads(text), {name: file.get_tensor(name) for name in names}, checksum
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: no whole shard of vectors ({error}); {_ANEW}") from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(tensors: Mapping) -> str:
    """SHA-256 of names, types, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
