"""Shards of vectors on disk: safetensors files with the ids in their headers, written atomically.

`vectors` is [n, D] in one of four number formats and `modality` [n] holds codes of `Modality`; int8
has `scales` [n] as well. Equal contents give equal bytes.
"""

# Shapes: n items of a shard, D embedding size.

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import read_json, replacing

__all__ = [
    "FORMATS",
    "Shard",
    "ShardFolder",
    "read_header",
    "read_shard",
    "shard_files",
    "truncate",
    "write_shard",
]


FORMATS = ("float32", "float16", "bfloat16", "int8")
_HEADER = "unite"  # a single entry, as safetensors writes several in no fixed order


@dataclass(frozen=True)
class Shard:
    """Vectors of consecutive items of a corpus.

    ids       of the items that have a vector, in the order of the corpus
    vectors   [n, D] float32
    modality  [n] uint8 codes of `Modality`
    bad       {id: what was wrong} of items without a vector
    noted     further entries of the header
    """

    ids: Sequence[str]
    vectors: np.ndarray
    modality: np.ndarray
    bad: Mapping[str, str] = field(default_factory=dict)
    noted: Mapping = field(default_factory=dict)


class ShardFolder:
    """Shards of an encoded corpus, read one by one, as often as iterated.

    model  `model_key` of the model that encoded it
    ValueError if the folder holds no corpus that was encoded to its end.
    """

    def __init__(self, folder: str | Path):
        self.files = shard_files(folder)
        if not self.files or not Path(folder, "report.json").is_file():
            raise ValueError(
                f"{folder}: no finished corpus of vectors (no shards or no report.json); run "
                "`unite encode` to its end"
            )
        self.model: str = read_json(Path(folder, "report.json"))["inputs"]["model"]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Shard]:
        return map(read_shard, self.files)


def write_shard(path: str | Path, shard: Shard, number_format: str = "float32") -> None:
    """Write a shard, atomically and flushed to the disk.

    int8 is symmetric per row: round(v / s) with s = max |v| / 127, which changes the cosine of two
    unit vectors by about 1e-3 at D = 256.
    """
    import torch
    from safetensors.torch import save_file

    if len(shard.ids) != len(shard.vectors) or len(shard.ids) != len(shard.modality):
        raise ValueError(
            f"{path}: {len(shard.ids)} ids, {len(shard.vectors)} vectors and "
            f"{len(shard.modality)} modalities: give one of each per item"
        )
    vectors = torch.from_numpy(np.ascontiguousarray(shard.vectors, dtype=np.float32))
    tensors = {"modality": torch.from_numpy(np.asarray(shard.modality, dtype=np.uint8))}
    if number_format == "int8":
        tensors["scales"] = vectors.abs().amax(1).clamp(min=1e-30) / 127
        tensors["vectors"] = (vectors / tensors["scales"][:, None]).round().to(torch.int8)
    elif number_format in FORMATS:
        tensors["vectors"] = vectors.to(getattr(torch, number_format))
    else:
        raise ValueError(f"number format {number_format!r} is none of {', '.join(FORMATS)}")
    header = {"ids": list(shard.ids), "bad": dict(shard.bad), **shard.noted}
    with replacing(path) as partial:
        save_file(tensors, partial, {_HEADER: json.dumps(header, ensure_ascii=False)})


def read_shard(path: str | Path) -> Shard:
    """Read a shard, its vectors as float32; ValueError if the file is not whole."""
    header, tensors = _opened(path, lambda file: {name: file.get_tensor(name)
                                                  for name in file.keys()})  # fmt: skip  # noqa: SIM118
    vectors = tensors["vectors"].float()
    if "scales" in tensors:
        vectors *= tensors["scales"][:, None]
    ids, bad = header.pop("ids"), header.pop("bad")
    return Shard(ids, vectors.numpy(), tensors["modality"].numpy(), bad, header)


def read_header(path: str | Path) -> dict:
    """Read `ids`, `bad` and further entries of a shard's header, without the vectors."""
    return _opened(path, lambda file: None)[0]


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


def _opened(path: str | Path, read):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[_HEADER]), read(file)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: no whole shard of vectors ({error}); remove it") from error
