"""Small benchmarks written in the layouts of the real ones, from the shapes corpus's scenes."""

import csv
import json

import av
import numpy as np

from unite_core.corpora.scenes import COLOURS, SHAPES, Scene, caption, draw, draw_clip

SCENES = [Scene(shape, colour) for shape, colour in zip(SHAPES, COLOURS, strict=True)]
CLIPS = [Scene(s.shape, s.colour, motion=m) for s in SCENES[:3] for m in ("left", "growing")]
EDITS = {"left": "make it grow", "growing": "make it move left"}


def write_images(folder, names=range(8), suffix="jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in zip(names, SCENES, strict=False):
        draw(scene, 56).save(folder / f"{name}.{suffix}")


def write_clip(path, scene, rate=4):
    """An mpeg4 file of the scene's eight frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 56, 56, "yuv420p"
        container.start_encoding()
        for frame in draw_clip(scene, 56):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), "rgb24")))
        container.mux(stream.encode())


def write_urban1k(root):
    """Captions of several lines: only the first is the caption."""
    write_images(root / "Urban1k" / "image", range(1, 9))
    folder = root / "Urban1k" / "caption"
    folder.mkdir()
    for number, scene in enumerate(SCENES, 1):
        (folder / f"{number}.txt").write_text(f"{caption(scene)}\nleft over\n")


def write_docci(root):
    """Two training rows among the test rows."""
    write_images(root / "docci" / "images", [f"test_{n:05}" for n in range(8)])
    rows = [
        {"image_file": f"test_{n:05}.jpg", "split": "test", "description": caption(scene),
         "example_id": f"test_{n:05}"}
        for n, scene in enumerate(SCENES)
    ]  # fmt: skip
    train = {"image_file": "train_00000.jpg", "split": "train", "description": "never read"}
    lines = [json.dumps(row) for row in [train, *rows, train]]
    (root / "docci" / "docci_descriptions.jsonlines").write_text("\n".join(lines) + "\n")


def write_sharegpt4v(root, more=()):
    """The caption file's own indentation and image paths; `more` rows follow."""
    write_images(root / "sharegpt4v" / "sam" / "images", [f"sa_{n}" for n in range(8)])
    rows = [
        {"id": f"sa_{n}", "image": f"sam/images/sa_{n}.jpg", "conversations": [
            {"from": "human", "value": "What is shown?\n<image>"},
            {"from": "gpt", "value": f"This is {caption(scene)}.\n\nNothing else."}]}
        for n, scene in enumerate(SCENES)
    ]  # fmt: skip
    name = "share-captioner_coco_lcs_sam_1246k_1107.json"
    (root / "sharegpt4v" / name).write_text(json.dumps([*rows, *more], indent=2))


def mmeb_rows(subset):
    """Rows of an image-to-text and of an image-and-text-to-image task."""
    paths = [f"{subset}/{n}.jpg" for n in range(8)]
    names = [scene.shape for scene in SCENES]
    rows = []
    for n in range(8):
        others = [(n + step) % 8 for step in range(1, 4)]
        if subset == "ImageNet-1K":
            rows.append(
                ("<|image_1|>\nName the shape.", paths[n], [names[i] for i in [n, *others, n]],
                 [""] * 5)
            )  # fmt: skip
        else:
            texts = [f'<|image_1|>\nRepresent the {names[i]}: "{names[i]}"' for i in [n, *others]]
            rows.append(
                (f"<|image_1|>\nFind the {names[n]}.", paths[(n + 1) % 8], texts,
                 [paths[i] for i in [n, *others]])
            )  # fmt: skip
    return rows


def write_mmeb(root, subset, rows=None):
    import pyarrow
    import pyarrow.parquet

    write_images(root / "MMEB-eval" / "images" / subset)
    columns = ("qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
    rows = mmeb_rows(subset) if rows is None else rows
    table = pyarrow.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True)))
    folder = root / "MMEB-eval" / subset
    folder.mkdir(parents=True, exist_ok=True)
    half = len(rows) // 2
    for part, half_table in enumerate((table[:half], table[half:])):
        pyarrow.parquet.write_table(half_table, folder / f"test-{part:05}-of-00002.parquet")


def covr_rows():
    """Each clip changed into its sibling, so that every reference is a target too."""
    return [
        {"": n, "txt1": caption(scene), "txt2": caption(CLIPS[n ^ 1]), "sim_txt": 0.9,
         "pth1": f"{n // 4:03}/{n}", "pth2": f"{(n ^ 1) // 4:03}/{n ^ 1}",
         "edit": EDITS[scene.motion], "scores": "[0.5, 0.25]"}
        for n, scene in enumerate(CLIPS)
    ]  # fmt: skip


def write_covr(root, rows=None):
    for n, scene in enumerate(CLIPS):
        write_clip(root / "WebVid" / "8M" / "train" / f"{n // 4:03}" / f"{n}.mp4", scene)
    rows = covr_rows() if rows is None else rows
    path = root / "WebVid-CoVR" / "webvid8m-covr_test.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as lines:
        table = csv.DictWriter(lines, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
