"""The emoji corpus: splits are pure and tight, records stay in training, tasks are answerable."""

import itertools
import json
import re
from collections import Counter

import pytest

from unite_core.corpora.emoji.catalogue import (
    CLIP_PACKAGES,
    EXTRA_STYLES,
    HELD_OUT_STYLE,
    PACKAGES,
    STYLES,
    Emoji,
    family_of,
    is_composition,
    normalize,
    split_of,
)
from unite_core.corpora.emoji.corpus import Corpus
from unite_core.corpora.emoji.leakage import merge_families, near_duplicates, style_distance
from unite_core.corpora.emoji.pairs import stage1_records, stage2_records
from unite_core.corpora.emoji.render import still_renderers
from unite_core.corpora.emoji.tasks import retrieval_tasks
from unite_core.data.records import validate_record
from unite_core.evaluation.tasks import read_tasks
from unite_core.files import write_json

TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
JOBS = [f"{0x1F300 + i:x}" for i in range(60)]  # signs that can follow a person
PATH = re.compile(r"(?:images/([\w-]+)|videos)/([0-9a-f-]+)\.(?:png|webp)")


@pytest.fixture(scope="module")
def corpus():
    """Real code points with made-up words: persons of all tones and genders, and plain things."""
    variants = itertools.product(("1f9d1", "1f468", "1f469"), ("", *TONES), JOBS)
    people = ["-".join(p for p in (who, tone, "200d", job) if p) for who, tone, job in variants]
    things = [f"{0x1F400 + i:x}" for i in range(60)] + [f"{0x1F950 + i:x}" for i in range(60)]
    emoji = [
        Emoji(code, f"label of {code}", f"Name von {code}", ("some", f"tag{code[:5]}"), "g", "kind")
        for code in sorted({*people, *things})
    ]
    codes = frozenset(e.code for e in emoji)
    some = frozenset(code for code in codes if len(code) % 2)
    return Corpus(tuple(emoji), codes, dict.fromkeys(EXTRA_STYLES, some))


def media_of(records):
    """(style or "animated", code) of every medium that records name."""
    for style, code in PATH.findall(json.dumps(list(records))):
        yield style or "animated", code


@pytest.mark.parametrize(
    "code, family",
    [
        ("1f3c4-1f3fc-200d-2642", "1f3c4"),  # tone and gender sign
        ("1f6b6-1f3fd-200d-2640-200d-27a1", "1f6b6"),  # and direction
        ("1f468-1f3ff-200d-1f680", "1f9d1-1f680"),  # man astronaut
        ("1f478-1f3fb", "1fac5"),  # princess
        ("1f936", "1f9d1-1f384"),  # Mrs. Claus
        ("1f468-200d-1f469-200d-1f467", "family"),
        ("2642", "2642"),  # the sign alone is itself
        ("1f431", "1f431"),
        ("1f63a", "1f431"),  # looks like the cat face in one style
    ],
)
def test_family_collapses_tone_gender_direction_and_lookalikes(code, family):
    assert family_of(code) == family


def test_normalize_drops_variation_selectors():
    assert normalize("1F3C4-1F3FC-200D-2642-FE0F") == "1f3c4-1f3fc-200d-2642"


def test_a_held_out_family_is_held_out_in_every_rendering(corpus):
    renderings = (*STYLES, *EXTRA_STYLES, "animated", "text")
    for emoji in corpus.emoji:
        splits = {split_of(emoji.code, style) for style in renderings}
        if splits & {"concept", "development", "composition"}:
            assert len(splits) == 1, emoji.code
        assert split_of(emoji.code, "fluent") == split_of(emoji.code, "animated")
        assert split_of(emoji.code, "fluent") == split_of(emoji.code, "fluent-flat")
        assert split_of(emoji.code, HELD_OUT_STYLE) != "train"


def test_split_shares_are_as_stated(corpus):
    families = {emoji.family for emoji in corpus.emoji}
    shares = Counter(split_of(f, "text") for f in families)
    assert 0.08 < shares["concept"] / len(families) < 0.22
    toned = [e.code for e in corpus.emoji if e.tones]
    assert 0.15 < sum(map(is_composition, toned)) / len(toned) < 0.25


@pytest.mark.parametrize("records", [stage1_records, stage2_records])
def test_training_records_hold_training_renderings_only(corpus, records):
    rows = list(records(corpus, 0))
    media = list(media_of(rows))
    assert media and all(split_of(code, style) == "train" for style, code in media)
    text = json.dumps(rows)
    held_out = [e for e in corpus.emoji if split_of(e.code, "text") != "train"]
    assert held_out and not any(f'{e.label}"' in text or f"{e.label}." in text for e in held_out)
    assert not any(f'{e.label_de}"' in text for e in held_out)
    for row in rows:
        validate_record(row)


@pytest.mark.parametrize("records", [stage1_records, stage2_records])
def test_extra_styles_are_trained_where_they_are_drawn(corpus, records):
    drawn = {(style, code) for style, code in media_of(records(corpus, 0))}
    assert {style for style, _ in drawn} == {*STYLES, *EXTRA_STYLES, "animated"} - {HELD_OUT_STYLE}
    assert all(code in corpus.extra.get(style, [code]) for style, code in drawn)


def test_icon_sets_without_characters_take_the_names_of_another(tmp_path):
    icons = {"icons": {"cat": {"body": "<g/>"}}, "width": 8, "height": 8}
    write_json(tmp_path / "icons.json", icons)
    assert not (tmp_path / "chars.json").exists()
    names = {"1f431": "cat", "1f63a": "cat", "1f436": "dog"}
    assert set(still_renderers("emojione", tmp_path, names)) == {"1f431", "1f63a"}


def test_records_depend_on_the_seed_alone(corpus):
    assert list(stage2_records(corpus, 1)) == list(stage2_records(corpus, 1))
    assert list(stage2_records(corpus, 1)) != list(stage2_records(corpus, 2))


def test_stage_1_has_the_papers_pair_types_and_stage_2_the_instructions(corpus):
    assert {r["task"] for r in stage1_records(corpus, 0)} == {
        "text-text", "image-text", "video-text",
    }  # fmt: skip
    assert {r["task"].split()[0] for r in stage2_records(corpus, 0)} == {
        "I-I", "I-T", "T-I", "T-V", "T-I+T", "I+T-T", "I+T-I", "I+T-V", "V+T-V",
    }  # fmt: skip


def test_an_edit_changes_what_its_sentence_says_and_nothing_else(corpus):
    edits = [r for r in stage2_records(corpus, 0) if r["task"] == "I+T-I tone"]
    names = {"1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium",
             "1f3fe": "medium-dark", "1f3ff": "dark"}  # fmt: skip
    assert edits
    for edit in edits:
        (_, source), (_, target) = media_of([edit])
        tone = next(t for t in TONES if t in target)
        assert edit["query"]["text"].endswith(f"with {names[tone]} skin tone")
        assert re.sub("1f3f[b-f]", "", source) == re.sub("1f3f[b-f]", "", target) != source


def test_tasks_ask_for_held_out_things_and_keep_siblings_in_the_pool(corpus, tmp_path):
    write_json(tmp_path / "tasks.json", retrieval_tasks(corpus, 0))
    tasks = read_tasks(tmp_path / "tasks.json")
    assert len(tasks) == 64
    for task in tasks:
        for query, positives in zip(task.queries, task.positives, strict=True):
            sides = [*media_of([query]), *media_of(task.candidates[p] for p in positives)]
            unseen = {split_of(code, style) for style, code in sides}
            if sides:
                assert task.split in unseen, (task.name, task.split)
    edited = next(t for t in tasks if (t.name, t.split) == ("image + tone → image", "composition"))
    pool = {code for _, code in media_of(edited.candidates)}
    sources = {code for _, code in media_of(edited.queries)}
    assert sources <= pool  # the reference, in the target style, competes


def test_asked_twins_differ_from_plain_tasks_in_the_words_alone(corpus):
    tasks = {(t["split"], t["name"]): t for t in retrieval_tasks(corpus, 0)}
    twins = {key: t for key, t in tasks.items() if t["kind"] == "asked"}
    assert len(twins) == 16
    trained = [r["query"] for r in stage2_records(corpus, 0)]
    openings = {q["text"].partition(":")[0] for q in trained if "text" in q}
    for (split, name), twin in twins.items():
        plain = tasks[split, name.removesuffix(", asked")]
        assert plain["kind"] == "plain"
        same = ("candidates", "positives", "families", "query_concepts", "candidate_concepts")
        assert all(twin[field] == plain[field] for field in same)
        for asked, bare in zip(twin["queries"], plain["queries"], strict=True):
            assert asked["text"].partition(":")[0] in openings
            assert asked["text"].endswith(bare.get("text", ""))
            assert {k: v for k, v in asked.items() if k != "text"} == {
                k: v for k, v in bare.items() if k != "text"
            }
    order = [t["name"] for t in retrieval_tasks(corpus, 0) if t["split"] == "style"]
    assert order[12:] == [f"{name}, asked" for name in (*order[:3], order[4])]
    kinds = {t["name"]: t["kind"] for t in tasks.values()}
    for name, kind in kinds.items():
        assert (kind == "instructed") == ("+" in name)


def test_concepts_are_codes_and_tie_the_modalities_together(corpus):
    tasks = {t["name"]: t for t in retrieval_tasks(corpus, 0) if t["split"] == "composition"}
    modalities = {}
    for task in tasks.values():
        for item, code in zip(task["candidates"], task["candidate_concepts"], strict=True):
            if code:
                assert code in json.dumps(item)
                modalities.setdefault(code, set()).update(item)
        for answers, code in zip(task["positives"], task["query_concepts"], strict=True):
            found = task["candidate_concepts"][answers[0]]
            assert found == code or (task["name"] == "image + question → text" and not found)
    assert all(found == {"text", "image", "video"} for found in modalities.values())
    answers = tasks["image + question → text"]
    assert "" in answers["candidate_concepts"]  # a tone or a kind is of many emoji


def test_tasks_of_an_older_version_are_written_anew_and_nothing_else(
    corpus, tmp_path, monkeypatch, capsys
):
    from unite_core.corpora.emoji import build as module

    monkeypatch.setattr(module, "render_media", lambda *_: corpus)
    manifest = module.build(tmp_path)
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    old = json.loads(manifest.read_text())
    del old["tasks_format"]
    write_json(manifest, old)
    (tmp_path / "tasks.json").write_text("[]")
    (tmp_path / "stage1.jsonl").write_text("stays")
    module.build(tmp_path)
    again = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert again == written | {"stage1.jsonl": b"stays"}
    capsys.readouterr()
    module.build(tmp_path)
    assert "up to date" in capsys.readouterr().out


def test_near_duplicates_between_families_are_found_and_merged(tmp_path):
    from PIL import Image

    for style in STYLES:
        (tmp_path / "images" / style).mkdir(parents=True)
        for number, code in enumerate(("1f40a", "1f40b", "1f40c")):
            shade = 10 if style == "noto" and number < 2 else 60 * number
            image = Image.new("RGB", (112, 112), (shade, 255 - shade, 0))
            image.save(tmp_path / "images" / style / f"{code}.png")
    pairs = near_duplicates(tmp_path)
    assert [pair[:3] for pair in pairs] == [("noto", "1f40a", "1f40b")]
    assert merge_families(pairs) == {"1f40b": "1f40a"}


def test_styles_that_redraw_each_other_are_told_from_those_that_do_not(tmp_path):
    from PIL import Image

    codes = [
        code
        for code in (f"{0x1F400 + i:x}" for i in range(40))
        if split_of(code, "noto") == "train"
    ]
    shades = {"twemoji": 0, "noto": 3, "openmoji": None}
    for style, more in shades.items():
        (tmp_path / "images" / style).mkdir(parents=True)
        for number, code in enumerate(codes):
            shade = 6 * number + more if more is not None else 255 - 6 * number
            Image.new("RGB", (56, 56), (shade,) * 3).save(
                tmp_path / "images" / style / f"{code}.png"
            )
    alike, unlike = (style_distance(tmp_path, style) for style in ("noto", "openmoji"))
    assert alike["n"] == unlike["n"] == len(codes) > 10
    assert alike["smallest difference"] == pytest.approx(3 / 255, abs=1e-4)
    assert alike["recall@10"] == 1 > unlike["recall@10"]


def test_packages_are_pinned_and_the_default_download_is_small():
    everything = [*PACKAGES.values(), *CLIP_PACKAGES.values()]
    assert all(len(p.sha512) == 88 and p.licence for p in everything)
    default = sum(p.size for p in PACKAGES.values()) + CLIP_PACKAGES[3].size
    assert default < 350e6
