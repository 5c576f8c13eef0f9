"""Own data in a notebook: opened in every form, described, cleaned, split, and compared."""

import csv

import numpy as np
import pytest
from PIL import Image, ImageDraw

from unite_core.data.json_stream import RecordError
from unite_core.evaluation.tasks import RetrievalTask, evaluate
from unite_core.notebook import own_data
from unite_core.plots.embedding_map import plot_contact_sheet

COLOURS = ("red", "green", "blue", "orange", "purple", "black", "brown", "cyan")
SHAPES = ("circle", "square", "bar", "cross")


def draw(path, colour, shape):
    picture = Image.new("RGB", (64, 64), "white")
    pen = ImageDraw.Draw(picture)
    where = {"circle": (8, 8, 40, 40), "square": (20, 20, 60, 60), "bar": (4, 28, 60, 36)}
    if shape == "circle":
        pen.ellipse(where[shape], fill=colour)
    elif shape == "cross":
        pen.line((4, 4, 60, 60), fill=colour, width=9)
        pen.line((60, 4, 4, 60), fill=colour, width=9)
    else:
        pen.rectangle(where[shape], fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV as people have it: 32 pictures with titles, a copy, a title that says nothing."""
    root = tmp_path_factory.mktemp("own")
    rows = [(f"pictures/{c}_{s}.png", f"a {c} {s} on white", c) for c in COLOURS for s in SHAPES]
    for path, _, _ in rows:
        draw(root / path, *path.removeprefix("pictures/").removesuffix(".png").split("_"))
    (root / "pictures" / "copy.png").write_bytes((root / rows[0][0]).read_bytes())
    rows += [("pictures/copy.png", rows[0][1], "red"), (rows[9][0], "IMG_0231", "blue")]
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "title", "colour"), *rows])
    return root / "table.csv"


@pytest.fixture(scope="module")
def found(table, tmp_path_factory):
    return own_data.open_collection(str(table), tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def cleaned(found, tmp_path_factory):
    return own_data.clean(found, tmp_path_factory.mktemp("facts"))


def test_columns_are_guessed_and_said(found, table):
    assert len(found.records) == 34 and not found.rejects and found.root == table.parent
    assert found.records[0] == {
        "query": {"text": "a red circle on white"},
        "candidate": {"image": "pictures/red_circle.png"},
        "source": "table",
    }
    assert "text from title, media from file" in found.words()


def test_paths_are_said_from_the_project_s_root(found, table, monkeypatch):
    monkeypatch.setattr(own_data, "project_root", lambda: table.parent.parent)
    assert f"below {table.parent.name} (other" in found.words()


def test_named_columns_groups_and_limits(table, tmp_path):
    columns = {"text": "title", "image": "file", "video": "", "group": "colour"}
    found = own_data.open_collection(str(table), tmp_path, columns, limit=5)
    assert found.labels == ["red"] * 4 + ["green"] and len(found.records) == 5
    with pytest.raises(RecordError, match="it has file, title, colour"):
        own_data.open_collection(str(table), tmp_path, {"text": "tilte"})


def test_rows_that_are_no_pairs_are_listed_by_cause(table, tmp_path):
    lines = table.read_text().splitlines()
    (tmp_path / "table.csv").write_text("\n".join([*lines[:3], "pictures/none.png,lost,red"]))
    found = own_data.open_collection(str(tmp_path / "table.csv"), tmp_path, media_root=table.parent)
    (row,) = own_data.reject_rows(found.rejects)
    assert row["rows"] == 1 and "none.png" in row["first"] and len(found.records) == 2


def test_a_folder_with_texts_beside_its_pictures(tmp_path):
    for name in ("a", "b"):
        draw(tmp_path / f"{name}.png", "red", "bar")
        (tmp_path / f"{name}.txt").write_text(f"the letter {name}\n")
    found = own_data.open_collection(str(tmp_path), tmp_path)
    assert [record["query"]["text"] for record in found.records] == ["the letter a", "the letter b"]


def test_parquet_and_saved_sets_with_pictures_inside(table, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = [table.parent / f"pictures/{c}_bar.png" for c in COLOURS]
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    columns = {"image": cells, "caption": [f"a {c} bar" for c in COLOURS]}
    features = datasets.Features(image=datasets.Image(), caption=datasets.Value("string"))
    datasets.Dataset.from_dict(columns, features).to_parquet(tmp_path / "set.parquet")
    found = own_data.open_collection(str(tmp_path / "set.parquet"), tmp_path)
    assert len(found.records) == 8 and found.records[2]["query"] == {"text": "a blue bar"}
    assert (found.root / found.records[2]["candidate"]["image"]).is_file()
    datasets.Dataset.from_dict(columns, features).save_to_disk(tmp_path / "saved")
    before = sorted((tmp_path / "saved").rglob("*"))
    found = own_data.open_collection(str(tmp_path / "saved"), tmp_path / "media")
    assert (tmp_path / "media" / found.records[2]["candidate"]["image"]).is_file()
    assert sorted((tmp_path / "saved").rglob("*")) == before, "nothing is written into it"


@pytest.mark.parametrize(("source", "resolved"), [
    ("hub:owner/name", "hub:owner/name"), ("owner/name", "hub:owner/name"),
])  # fmt: skip
def test_a_hub_set_is_told_from_a_folder(source, resolved, tmp_path, monkeypatch):
    def refuse(path, media_root, **_):
        raise RecordError(f"{path} below {media_root}")

    monkeypatch.setattr(own_data, "find_data", refuse)
    with pytest.raises(RecordError, match=f"^{resolved} below {tmp_path}$"):
        own_data.open_collection(source, tmp_path)


def test_the_overview_counts_and_measures(found):
    rows = {(row["part"], row["what"]): row["value"] for row in own_data.overview_rows(found)}
    assert rows["text → image", "pairs"] == 34
    assert rows["candidate images", "files, unreadable"] == "33, 0"
    assert rows["candidate images", "pixels, least, half, most"] == "64 × 64, 64 × 64, 64 × 64"
    assert rows["queries", "repeat an earlier one by name"] == "2.9%"


def test_what_goes_stands_beside_what_stays(found, cleaned, ax):
    reasons = {row["reason"]: row["pairs"] for row in own_data.reason_rows(cleaned)}
    assert reasons["exact duplicate"] == 1 and reasons["boilerplate"] == 1
    items, captions = own_data.drop_examples(found.records, cleaned)
    place = captions.index("a red circle on white\nexact duplicate")
    assert items[place] == {"image": "pictures/copy.png"}
    assert items[place + 1] == {"image": "pictures/red_circle.png"}
    assert captions[place + 1] == "a red circle on white\nstays"
    assert captions[captions.index("IMG_0231\nboilerplate") + 1] == ""
    plot_contact_sheet(items, ax, found.root, captions=captions)


def test_a_sheet_shows_pairs_from_all_over(found):
    items, captions = own_data.sheet_of(found.records, 5)
    assert items[0] == {"image": "pictures/red_circle.png"} and captions[-1] == "IMG_0231"
    assert len(own_data.sheet_of(found.records[:3])[0]) == 3


@pytest.fixture
def held_out(found, cleaned, tmp_path):
    rows = [found.records[row] for row in np.flatnonzero(cleaned.reasons.kept)]
    return own_data.hold_out(rows, found.root, tmp_path, 0.3)


def test_what_is_held_out_shares_nothing_and_makes_tasks_both_ways(held_out):
    assert not own_data.shared_items(held_out)
    assert [task.name for task in held_out.tasks] == ["image to text", "text to image"]
    for task in held_out.tasks:
        assert len(set(task.families)) >= 2 and len(task.queries) == len(task.candidates)


def test_shared_items_are_noticed(held_out):
    with held_out.train.open("a") as file:
        file.write(held_out.test.read_text().splitlines()[0] + "\n")
    assert len(own_data.shared_items(held_out)) == 2


def test_groups_stay_on_one_side(found, tmp_path):
    labels = [record["query"]["text"].split()[1] for record in found.records[:32]]
    held = own_data.hold_out(found.records[:32], found.root, tmp_path, 0.4, 1, labels)
    (task,) = [task for task in held.tasks if task.name == "text to image"]
    colours = [query["text"].split()[1] for query in task.queries]
    assert all(colours.count(colour) == 4 for colour in colours)
    assert len(set(held.groups.tolist())) == len(COLOURS)


def test_what_is_linked_is_shown_in_twos():
    records = [{"query": {"text": f"{n}"}, "candidate": {"image": f"{n}.png"}} for n in range(7)]
    items, captions = own_data.linked_sheet(records, np.array([0, 1, 1, 2, 0, 0, 3]), 3)
    assert captions == ["0", "4", "1", "2"]
    assert items[1] == {"image": "4.png"}


def test_instructions_are_what_stage_2_is_for():
    image, text = {"image": "a.png"}, {"text": "in blue"}
    records = [
        {"query": text, "candidate": image},
        {"query": text | image, "candidate": image},
        {"query": text, "candidate": image, "instruction": "Find it."},
        {"query": text | {"instruction": "Find it."}, "candidate": image},
    ]
    assert own_data.instructed_rows(records).tolist() == [False, True, True, True]


def test_changes_are_ordered_by_what_was_gained():
    names = [f"thing {n}" for n in range(12)]
    queries, candidates = [{"text": f"a {n}"} for n in names], [{"text": n} for n in names]
    task = RetrievalTask("text to text", "held out", queries, candidates,
                         [[n] for n in range(12)], names)  # fmt: skip
    basis = np.eye(12)
    worse = basis.copy()
    worse[3] = (basis[3] + 2 * basis[4]) / np.sqrt(5)  # thing 4 comes first for query 3

    def scored(rows):
        vectors = dict(zip(task.query_ids, rows, strict=True))
        vectors |= zip(task.candidate_ids, basis, strict=True)
        return evaluate(None, [task], vectors=vectors), vectors

    (good, vectors), (bad, _) = scored(basis), scored(worse)
    gained, lost = own_data.changes(bad, good, task), own_data.changes(good, bad, task)
    assert gained[0] == own_data.Change(queries[3], candidates[3], 2, 1)
    assert lost[-1] == own_data.Change(queries[3], candidates[3], 1, 2)
    assert own_data.change_sheet(gained[:1])[1] == ["a thing 3 | thing 3\n2 → 1"]
    x, y = own_data.paired_sides(task, vectors)
    assert np.array_equal(x, y)


def test_the_collection_that_is_used_without_a_source(tmp_path, monkeypatch, table):
    monkeypatch.setattr(own_data, "line_drawings", lambda root, cache: table)
    assert len(own_data.open_collection("", tmp_path).records) == 34


def test_a_source_without_pairs_says_why(tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"query": {"text": "a"}, "candidate": {"text": ""}}\n')
    with pytest.raises(ValueError, match="no pair of a query and a candidate: .*empty.jsonl"):
        own_data.open_collection(str(tmp_path / "empty.jsonl"), tmp_path)
