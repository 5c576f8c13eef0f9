"""Mutated files of rows: only RecordErrors leave the readers, quickly and in bounded memory.

`UNITE_FUZZ=5000 pytest tests/data/test_reader_fuzz.py` tries so many files of each format; the
default is a short share.
"""

import gzip
import json
import os
import random
import time
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from unite_core.curate.adapters import ADAPTERS, adapter
from unite_core.curate.validate import MediaCheck, Reject, Report, check_rows
from unite_core.data.bad_media import BadMediaError
from unite_core.data.json_stream import RecordError
from unite_core.data.pairs import PairDataset
from unite_core.data.readers import raw_rows

CASES = int(os.environ.get("UNITE_FUZZ", "40"))
SECONDS, BYTES = 5, 1 << 28  # for one small file
ROWS = [
    {
        "query": {"text": f"text {n} ü", "image": None},
        "candidate": {"text": None, "image": {"bytes": b"\x89PNG" * n, "path": f"{n}.png"}},
        "negative": [{"text": "other"}],
        "task": "t",
        "seen": 1_700_000_000 + n,
    }
    for n in range(1, 30)
]
PLAIN = [{"query": {"text": row["query"]["text"]}, "candidate": {"image": "a.png"}} for row in ROWS]
LINES = "\n".join(map(json.dumps, PLAIN)).encode()
NASTY = [
    b"\xff\xfe", b"\0" * 50, b"[" * 3000, b'{"a":' * 3000, b'"', b'"\\ud800"', b"1e999", b"NaN",
    b"9" * 5000, b'{"a": 1, "a": 2}', b"\r", b'\n"\n', b",,,,", b"\xef\xbb\xbf", b"\\", b"null",
]  # fmt: skip


def parquet(**options):
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(ROWS)
    seen = table["seen"].cast(pa.timestamp("s"))
    pq.write_table(table.set_column(table.num_columns - 1, "seen", seen), sink, **options)
    return sink.getvalue().to_pybytes()


SEEDS = {
    "a.jsonl": LINES,
    "a.json": json.dumps(PLAIN).encode(),
    "a.csv": b"query,positive\n" + b'"a ""text""",another\n' * 30,
    "a.jsonl.gz": gzip.compress(LINES),
    "a.jsonl.zst": zstandard.compress(LINES),
    "b.csv.gz": gzip.compress(b"query,positive\n" + b'"a ""text""",another\n' * 30),
    "a.parquet": parquet(),
    "b.parquet": parquet(compression="none", use_dictionary=False, row_group_size=7),
    "c.parquet": parquet(compression="zstd", data_page_version="2.0", write_page_index=True),
}


def mutated(content, chance):
    """The content with a few flips, cuts, repetitions, insertions and overwritten numbers."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(max(len(content), 1))
        kind = chance.randrange(6)
        if kind == 0 and content:
            content[at] = chance.randrange(256)
        elif kind == 1:
            del content[at : at + chance.choice((1, 4, 100, len(content)))]
        elif kind == 2:
            content[at:at] = content[at : at + chance.randrange(200)] * chance.choice((1, 3))
        elif kind == 3:
            content[at:at] = chance.choice(NASTY)
        elif kind == 4:
            content[at : at + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        elif content:
            content[at] ^= 1 << chance.randrange(8)
    return bytes(content)


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files_are_rows_or_record_errors(tmp_path, name):
    path, root = tmp_path / name, tmp_path / "root"
    chance = random.Random(name)
    pool = pa.default_memory_pool()
    for case in range(CASES):
        path.write_bytes(mutated(SEEDS[name], chance))
        start = time.process_time()
        try:
            check(path, root, chance)
        except Exception as error:
            raise AssertionError(f"case {case} of {name}: {error!r}") from error
        assert time.process_time() - start < SECONDS, f"case {case} of {name}"
        assert pool.bytes_allocated() < BYTES, f"case {case} of {name}"


def check(path, root, chance):
    """Read a file as curation and training do; what is no RecordError is a failure."""
    convert = adapter(chance.choice(sorted(set(ADAPTERS) - {"folder"})), instruction="Find it:")
    report = Report()
    try:
        for found in check_rows(
            raw_rows(path, media_root=root), convert, MediaCheck(root, "file"), report
        ):
            if isinstance(found, Reject):
                assert str(path) in found.where
                json.dumps(found, ensure_ascii=False).encode()
            else:
                json.dumps(found, ensure_ascii=False).encode()
    except RecordError as error:
        assert str(path) in str(error)
    try:
        PairDataset([path], root)
    except (RecordError, BadMediaError) as error:
        assert str(path) in str(error)


def test_memory_stays_bounded_over_mutated_files(tmp_path):
    chance = random.Random(0)
    tracemalloc.start()
    try:
        for name, content in SEEDS.items():
            (tmp_path / name).write_bytes(mutated(content, chance))
            tracemalloc.reset_peak()
            check(tmp_path / name, tmp_path / "root", chance)
            assert tracemalloc.get_traced_memory()[1] < BYTES, name
    finally:
        tracemalloc.stop()
