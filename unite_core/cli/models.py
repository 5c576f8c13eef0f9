"""Verbs of models: train a stage, verify, export."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from .options import config_command, load_options, loading

_FOLDER = click.Path(file_okay=False, path_type=Path)
_OWN_STEPS = 200  # of a narrow model, where nobody says how many
_OWN_EPOCHS = 10  # and no more than so many times each pair
_MANY_EPOCHS = 20  # above it small data are learned by heart


def train() -> click.Command:
    from ..train.config import TrainConfig
    from .sources import column_options

    def run(config) -> None:
        from ..distributed import leave_processes, processes
        from ..evaluation.in_training import TrainingScores
        from ..search.hard_negatives import NegativeMiner
        from ..train.run import train

        model = train(config, TrainingScores, NegativeMiner)
        if processes()[0] == 0:
            click.echo(model)
            _say_next(config, model)
        leave_processes()

    return config_command(
        TrainConfig,
        "Train one stage; a run that was cut short goes on from its last checkpoint.",
        run,
        "unite train --model tiny-stage1 --data data/shapes/split/train.jsonl --output runs/mine",
        _fill_train,
        column_options(),
    )


def _say_next(config, model: Path) -> None:
    """How to see whether the training helped: beside the model that it started from."""
    from .sources import say

    folder = Path(config.data[0]).parent
    beside = [folder / name for name in ("test.tasks.json", "test.jsonl")]
    held_out = next((file for file in beside if file.is_file()), "HELD_OUT_PAIRS")
    say(f"next: unite evaluate {model} --data {held_out} --against {config.model}")


def _fill_train(given: dict[str, Any], values: dict[str, Any], own: dict[str, str]):
    """The stage for the model's size where none is named, and steps for it where none are given."""
    from ..train.reach import stage_for
    from .sources import with_data

    named = values.get("stage") or given.get("stage") or given.get("stage__name")
    model = given.get("model") or values.get("model")
    chosen = "stage1" if named or not isinstance(model, str) else stage_for(model)
    if chosen != "stage1":
        given["stage"] = chosen
    steps = chosen != "stage1" and not any(
        given.get(f"stage__{name}") is not None for name in ("max_steps", "epochs", "batch_size")
    )
    finish_data = with_data(given, values, own)

    def finish(config):
        config = finish_data(config)
        if chosen != "stage1":
            config = _for_narrow(config, chosen, steps)
        _warn_of_reach(config)
        _warn_of_epochs(config)
        return config

    return finish


def _for_narrow(config, chosen: str, choose_steps: bool):
    """A run of a narrow model with its stage, said in words."""
    from .sources import say

    stage = config.stage
    pairs = _count_pairs(config) if choose_steps or stage.max_steps > 0 else 0
    if choose_steps:
        batch = max(2, min(stage.batch_size, pairs // 2))
        steps = min(max(_OWN_STEPS, pairs // batch), max(1, _OWN_EPOCHS * pairs // batch))
        stage = replace(stage, batch_size=batch, max_steps=steps)
    steps, batch = stage.max_steps, stage.batch_size
    epochs = f"{steps * batch / pairs:,.1f} times each of {pairs} pairs" if pairs else "no pairs"
    say(
        f"stage {chosen}, for a model of this size: learning rate {stage.learning_rate:g}, LoRA "
        f"rank {stage.lora_rank}, alpha {stage.lora_alpha}, dropout {stage.lora_dropout:g}"
        + (f"; {steps} steps of {batch}, {epochs}" if steps > 0 else "")
        + " (--stage and --stage.* choose others)"
    )
    frozen = set(stage.visual_parts.values()) == {"frozen"} and not config.workers
    return replace(config, stage=stage, cache_vision=config.cache_vision or frozen)


def _count_pairs(config) -> int:
    from ..data.readers import raw_rows

    return sum(1 for file in config.data for _ in raw_rows(file))


def _warn_of_reach(config) -> None:
    from ..train.reach import short_reach
    from .sources import say

    pairs = _count_pairs(config) if config.stage.max_steps < 0 else 0
    if words := short_reach(config, pairs):
        say(f"warning: {words}")


def _warn_of_epochs(config) -> None:
    from ..data.readers import raw_rows
    from .sources import say

    stage = config.stage
    if stage.max_steps < 0:
        many = stage.epochs > _MANY_EPOCHS
    else:
        needed = stage.max_steps * stage.batch_size // _MANY_EPOCHS
        rows = chain.from_iterable(raw_rows(file) for file in config.data)
        many = sum(1 for _ in islice(rows, needed)) < needed
    if many:
        say(
            f"warning: more than {_MANY_EPOCHS} epochs: a model learns few pairs by heart and may "
            "find less than before; take fewer steps (--stage.max-steps)"
        )


def verify() -> click.Command:
    def run(model: str, example: str | None, media_root: Path, **given) -> int:
        from ..evaluation import verify as verification
        from ..model.loading import LoadConfig
        from .sources import check_names

        published = verification.example_of(model, example)
        check_names(model)
        pairs = verification.verify(model, published, media_root, LoadConfig(**loading(given)))
        click.echo(verification.format_verified(pairs, published))
        return int(not all(pair.is_explained for pair in pairs))

    return click.Command(
        None,
        help="Run a model's published example and compare with the published numbers; exit code 1 "
        "if they differ by more than the number type explains.\n\nYou bring the example's media; "
        "an error lists them and says where they are.",
        epilog="Example: unite verify friedrichor/Unite-Base-Qwen2-VL-2B --media-root "
        "UNITE/inference/examples",
        params=[
            click.Argument(["model"]),
            click.Option(["--example"], metavar="NAME|FILE.json",
                         help="A known example, or your own, in place of the one of that name."),
            click.Option(["--media-root"], type=_FOLDER, default=".", show_default=True,
                         help="Folder of the example's pictures and videos."),
            *load_options(),
        ],
        callback=run,
    )  # fmt: skip


def export() -> click.Command:
    def run(model: str, folder: Path, dtype: str, text_only: bool, check: bool) -> None:
        from .sources import check_names

        if not check:
            check_names(model)
        from ..export.sentence_transformers import check_export, export_model

        if check:
            found = check_export(model, folder, dtype)
        else:
            found = export_model(model, folder, dtype, text_only=text_only)
        for row in found:
            click.echo(
                f"{row.item:24}  largest difference {row.largest:.1e}  cosine {row.cosine:.6f}"
            )
        click.echo(f"{folder}: gives the vectors of {model}")

    return click.Command(
        None,
        help="Write a model for sentence-transformers; it appears only if its vectors are equal.",
        epilog="Example: unite export tiny-stage2 exported",
        params=[
            click.Argument(["model"]),
            click.Argument(["folder"], type=_FOLDER),
            click.Option(["--dtype"], type=click.Choice(["float32", "bfloat16", "float16"]),
                         default="float32", show_default=True, help="Type of the weights."),
            click.Option(["--text-only"], is_flag=True,
                         help="The text side alone, which needs no trust_remote_code."),
            click.Option(["--check"], is_flag=True, help="Only compare an export that exists."),
        ],
        callback=run,
    )  # fmt: skip
