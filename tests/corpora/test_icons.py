"""The icons corpus: what is taken from a set, titles as found, no test concept in training."""

import json

import pytest
from PIL import Image

from unite_core.corpora import CORPORA
from unite_core.corpora.icons import build as build_module
from unite_core.corpora.icons.build import SIZE, build
from unite_core.corpora.icons.catalogue import ICON_SETS, concept_of, read_icons, split_of
from unite_core.corpora.icons.pairs import fine
from unite_core.curate.recipe import Source, read_recipe
from unite_core.curate.rows import load_tests
from unite_core.data.records import read_records
from unite_core.evaluation.tasks import read_tasks
from unite_core.files import read_json

_ENDS = ("house", "circle", "off", "plus", "minus", "box", "star", "cup", "tree", "road")
NOUNS = [f"{first}-{second}" for first in ("cat", "dog", "sun", "key") for second in _ENDS]


def put_set(folder, name, icons, **about):
    """An unpacked package with these icons: {name: colour}."""
    package = folder / name
    package.mkdir(parents=True)
    bodies = {
        icon: {"body": f'<circle cx="12" cy="12" r="{4 + n % 8}" fill="{colour}"/>'}
        for n, (icon, colour) in enumerate(icons.items())
    }
    data = {"prefix": name, "width": 24, "height": 24, "icons": bodies} | about
    (package / "icons.json").write_text(json.dumps(data))
    return package


@pytest.fixture
def two_sets(tmp_path, monkeypatch):
    """Stand-ins for feather and eva, without a registry."""
    outline = {f"{noun}-outline": "blue" for noun in NOUNS}
    folders = {
        ICON_SETS["feather"].package.name: put_set(
            tmp_path, "feather", dict.fromkeys(NOUNS, "red")
        ),
        ICON_SETS["eva"].package.name: put_set(tmp_path, "eva", outline),
    }
    monkeypatch.setattr(build_module, "fetch", lambda packages, cache: folders)
    return tmp_path


def test_a_concept_is_its_words_without_style_and_size():
    styles = ("filled", "regular")
    assert concept_of("arrow-left-24-filled", styles) == concept_of("left-arrow") == "arrow left"
    assert concept_of("filled", styles) == "filled", "a name is never empty"
    assert split_of("arrow left") == split_of("arrow left")
    shares = [split_of(f"word {n}") for n in range(4000)]
    assert 0.1 < shares.count("concept") / 4000 < 0.14
    assert 0.035 < shares.count("development") / 4000 < 0.065


def test_one_size_of_a_drawing_is_taken_and_no_withdrawn_one(tmp_path):
    icons = {"cat-16-filled": "red", "cat-24-filled": "red", "cat-48-filled": "red",
             "dog-20-filled": "red", "old": "red"}  # fmt: skip
    package = put_set(tmp_path, "fluent", icons, aliases={"kitty": {"parent": "cat-24-filled"}})
    data = read_json(package / "icons.json")
    data["icons"]["old"]["hidden"] = True
    (package / "icons.json").write_text(json.dumps(data))
    (package / "metadata.json").write_text(json.dumps({"categories": {"Pets": ["cat-24-filled"]}}))
    cat, dog = read_icons(ICON_SETS["fluent"], package)
    assert (cat.name, cat.title, cat.concept) == ("cat-24-filled", "cat 24 filled", "cat")
    assert fine(cat) == "cat 24 filled. A kind of Pets: kitty." and fine(dog) == "dog 20 filled."
    assert dog.concept == "dog"


def test_licences_allow_any_use_and_packages_are_pinned():
    for icon_set in ICON_SETS.values():
        package = icon_set.package
        assert package.licence in ("MIT", "Apache-2.0", "ISC", "CC0-1.0")
        assert len(package.sha512) == 88 and package.size > 10_000 and package.version


def test_the_corpus_is_whole_and_tests_are_not_trained_on(two_sets):
    root = two_sets / "corpus"
    manifest = read_json(build(root, sets=["feather", "eva"]))
    assert manifest["counts"] == {"pictures": 80, "concepts": 40, "tasks": 6}
    recipe = read_recipe(root / "recipe.json")
    assert recipe.rules.leaks == "media" and (root / recipe.sources[0].path).is_file()
    records = [r for name in ("stage1", "stage2") for r in read_records(root / f"{name}.jsonl")]
    paths = [r["query"].get("image") or r["candidate"]["image"] for r in records]
    names = [path.split("/")[-1].split(".")[0] for path in paths]
    trained = {split_of(concept_of(name, ("outline",))) for name in names}
    assert trained == {"train"}
    for task in read_tasks(root / "tasks.json"):
        assert {split_of(concept) for concept in task.candidate_concepts} == {task.split}
        for query, places in zip(task.query_concepts, task.positives, strict=True):
            assert [task.candidate_concepts[place] for place in places] == [query]
        if task.name == "image → image":
            sets = [item["image"].split("/")[1] for item in (*task.queries, *task.candidates)]
            half = len(task.queries)
            assert all(a != b for a, b in zip(sets[:half], sets[half:], strict=False))
    assert len(list(load_tests(Source("tasks", "tasks.json"), root))) > 10


def test_pictures_are_drawn_on_nothing_once(two_sets):
    root = two_sets / "corpus"
    build(root, sets=["feather", "eva"])
    path = root / "images/feather/cat-house.png"
    with Image.open(path) as image:
        assert image.size == (SIZE, SIZE) and image.mode == "RGBA"
        assert image.getpixel((0, 0))[3] == 0 and image.getpixel((56, 56)) == (255, 0, 0, 255)
    made = path.stat().st_mtime_ns
    (root / "images/feather/cat-circle.png").unlink()
    (root / "manifest.json").unlink()
    stage1 = (root / "stage1.jsonl").read_bytes()
    build(root, sets=["feather", "eva"])
    assert path.stat().st_mtime_ns == made
    assert (root / "images/feather/cat-circle.png").is_file()
    assert (root / "stage1.jsonl").read_bytes() == stage1


def test_unknown_sets_are_named(tmp_path):
    with pytest.raises(ValueError, match="sets nosuch: known are mdi, "):
        CORPORA["icons"].build(tmp_path, sets=["nosuch"])
