"""What a run was started with: noted in its output folder, and compared when it goes on.

`train.json` holds the configuration, `inputs.json` hashes of all that decides the result: files of
the model's folder (and of the base of an adapter), records, media, number of processes. Package
versions are noted, too; where they differ, a warning says so. Settings that change speed and memory
but not what is computed may change between starts.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from ..data.pair_store import record_files
from ..data.pairs import PairDataset
from ..distributed import processes
from ..files import file_hash, read_json, write_json
from ..model.checkpoint import adapters_of, locate
from ..settings import read_config, write_config
from ..versions import note_versions, warn_of_versions
from .arguments import FREE_ARGUMENTS
from .config import TrainConfig

__all__ = ["check_run", "claim"]


_FREE = (  # fields of a run or its stage that may change when it goes on
    "output", "save_total_limit", "save_steps", "logging_steps", "cache_mib", "cache_vision",
    "vision_store", "workers", "forward_items", "forward_tokens", "attention", "grad_cache",
    "gradient_checkpointing", "shard_frozen", "shard_trained", "global_batch_size", *FREE_ARGUMENTS,
)  # fmt: skip
_MODEL_FILES = (
    "config.json", "unite.json", "preprocessor_config.json", "adapter_config.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json",
    "special_tokens_map.json",
)  # fmt: skip
_END = 2**18  # bytes of both ends of a media file that are hashed


def check_run(config: TrainConfig) -> dict:
    """Check whether a run can start or go on in its output folder; writes nothing.

    Returns its inputs but for the media, for `claim`. ValueError names each difference from the run
    that the folder holds; CheckpointError or FileNotFoundError where there is no such model.
    """
    output, inputs = Path(config.output), _inputs(config)
    if (output / "train.json").is_file():
        before = read_config(TrainConfig, output / "train.json")
        _refuse(output, _changes(before, read_json(output / "inputs.json"), config, inputs))
    return inputs


def claim(config: TrainConfig, inputs: Mapping, dataset: PairDataset) -> None:
    """Note a new run's configuration and inputs, or compare media and versions of an older one.

    Args
        inputs   of `check_run`
        dataset  the run's records
    ValueError where media are not those that the run was started with.
    """
    output = Path(config.output)
    before = read_json(output / "inputs.json") if (output / "train.json").is_file() else {}
    media = _media(dataset, config.media_root, before.get("media", {}))
    if not before:
        noted = {**inputs, "media": media, "versions": note_versions()}
        write_json(output / "inputs.json", noted, indent=1)
        write_config(config, output / "train.json")
        return
    if "media" in before and media["content"] != before["media"]["content"]:
        old, new = before["media"]["files"], media["files"]
        _refuse(output, [
            f"media files, or which of them are missing, differ ({old} files then, {new} now)"
        ])  # fmt: skip
    warn_of_versions(before.get("versions"), str(output))


def _inputs(config: TrainConfig) -> dict:
    folder = locate(config.model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading says it again
        base, _, adapters = adapters_of(folder, config.model)
    below = [] if base == folder else [base, *adapters[:-1]]  # what an adapter goes on
    hashes = {}
    for place, name in {folder: config.model, **{place: str(place) for place in below}}.items():
        hashes[name] = _hash(place.glob("*.safetensors"))
        found = (place / file for file in _MODEL_FILES)
        hashes |= {f"{name}/{file.name}": _hash([file]) for file in found if file.is_file()}
    held_out = [] if config.eval_data is None else [config.eval_data]
    hashes |= {path: _hash(record_files(Path(path))) for path in (*config.data, *held_out)}
    return {**hashes, "processes": processes()[1]}  # they multiply the batch


def _changes(before: TrainConfig, noted: Mapping, now: TrainConfig, inputs: Mapping) -> list[str]:
    """One line per difference that has an effect on the trained weights."""
    old, new = asdict(before), asdict(now)
    names = {"processes", *inputs, *noted} - {"media", "versions"}
    if "versions" not in noted:  # written before all that is noted now was
        names &= set(noted)
    if _pairs(before, noted) == _pairs(now, inputs):  # other processes, the same batches
        names -= {"processes"}
        old["stage"].pop("batch_size"), new["stage"].pop("batch_size")
    return _differences(old, new) + _differences(
        *({name: side.get(name) for name in names} for side in (noted, inputs))
    )


def _pairs(config: TrainConfig, inputs: Mapping) -> int:
    return config.stage.batch_size * inputs["processes"]


def _differences(before: Mapping, now: Mapping, prefix: str = "") -> list[str]:
    lines = []
    for name in sorted({*before, *now} - set(_FREE)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"{prefix}{name} was {old!r}, now {new!r}")
    return lines


def _refuse(output: Path, changes: list[str]) -> None:
    if changes:
        raise ValueError(
            f"{output} holds a run with another configuration: {'; '.join(changes)}. Choose "
            "another output, remove that folder to start afresh, or go back to its configuration"
        )


def _hash(files: Iterable[Path]) -> str:
    """Hash the contents of files, in the order of their names; "" if there is none."""
    digest, found = hashlib.sha256(), False
    for file in filter(Path.is_file, sorted(files)):
        found = True
        digest.update(bytes.fromhex(file_hash(file)))
    return digest.hexdigest()[:16] if found else ""


def _media(dataset: PairDataset, root: str, noted: Mapping) -> dict:
    """Digest of a data set's media files: their number, contents, and sizes and times.

    The contents are read only where sizes or times are not those that were noted. Of long files
    only both ends count: no format is encoded anew without a change of size or index. Of many files
    only those in `dataset.media` do.
    """
    stamps, content = hashlib.sha256(), hashlib.sha256()
    for path in dataset.media:
        stamps.update(f"{path} {_stamp(Path(root, path))}\n".encode())
    missing = sorted(row.where for row in dataset.bad)
    stamps.update(repr(missing).encode())
    found = {"files": dataset.media_count, "stamps": stamps.hexdigest()[:32]}
    if found["stamps"] == noted.get("stamps"):
        return dict(noted)
    content.update(repr(missing).encode())
    for path in dataset.media:
        content.update(f"{path} ".encode() + _ends(Path(root, path)))
    return {**found, "content": content.hexdigest()[:32]}


def _stamp(path: Path) -> str:
    """Size and time of a file, or that it has gone since the records were read."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return "gone"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _ends(path: Path) -> bytes:
    """Digest of a file's size and of its first and last `_END` bytes; of none, of a lost file."""
    if not path.exists():
        return b"gone"
    size = path.stat().st_size
    with path.open("rb") as stream:
        digest = hashlib.sha256(b"%d " % size + stream.read(_END))
        stream.seek(max(size - _END, min(size, _END)))
        digest.update(stream.read())
    return digest.digest()
