"""Verbs of models: train a stage, evaluate on public benchmarks, export."""

from __future__ import annotations

from pathlib import Path

import click

from .options import as_pairs, config_command, load_options, loading

_FOLDER = click.Path(file_okay=False, path_type=Path)


def train() -> click.Command:
    from ..train.config import TrainConfig

    def run(config) -> None:
        from ..distributed import leave_processes, processes
        from ..evaluation.in_training import TrainingScores
        from ..search.hard_negatives import NegativeMiner
        from ..train.run import train

        model = train(config, TrainingScores, NegativeMiner)
        if processes()[0] == 0:
            click.echo(model)
        leave_processes()

    return config_command(
        TrainConfig,
        "Train one stage; a run that was cut short goes on from its last checkpoint.",
        run,
        "unite train run.json --stage.max-steps 200 --output runs/stage1",
    )


def evaluate() -> click.Command:
    def run(model, tasks, data_root, output, settings, embed, instruct, compare, list_tasks,
            **given):  # fmt: skip
        from ..evaluation import benchmarks
        from ..evaluation.benchmarks import runs

        if list_tasks:
            click.echo(runs.task_table(benchmarks.BENCHMARKS))
            return 0
        if compare:
            first, second = (runs.read_runs(folder) for folder in compare)
            rows = runs.compare_runs(first, second)
            click.echo(runs.format_comparison(rows, first[0].model, second[0].model))
            return 0
        if not (model and tasks and output):
            raise click.UsageError("give a model, tasks and --output; or --compare; or --list")
        how = loading(given)
        return _run_benchmarks(
            model, tasks, data_root, output, settings, as_pairs(embed), instruct, how
        )

    return click.Command(
        None,
        help="Run public benchmarks on a model; finished tasks in the output folder are kept.\n\n"
        "TASKS are names of tasks or groups (see --list), or mteb:NAME for one of mteb's.",
        epilog="Example: unite evaluate MODEL urban1k docci mmeb --output runs/bench",
        params=[
            click.Argument(["model"], required=False),
            click.Argument(["tasks"], nargs=-1),
            click.Option(["--data-root"], type=_FOLDER, default="data/benchmarks",
                         show_default=True, help="Folder of the data sets."),
            click.Option(["--output"], type=_FOLDER, help="Folder of results."),
            click.Option(["--settings"], type=click.Choice(["paper", "checkpoint"]),
                         default="paper", show_default=True,
                         help="Frames, pixels and lengths of the paper or of the checkpoint."),
            click.Option(["--embed"], multiple=True, metavar="NAME=VALUE",
                         help="Fields of EmbedConfig, such as video_pixels=released."),
            click.Option(["--instruct"], is_flag=True, help="mteb's instructions before texts."),
            click.Option(["--compare"], nargs=2, type=_FOLDER, default=None, metavar="A B",
                         help="Test the models of two output folders against each other."),
            click.Option(["--list", "list_tasks"], is_flag=True, help="Show the tasks."),
            *load_options(),
        ],
        callback=run,
    )  # fmt: skip


def _run_benchmarks(model, tasks, data_root, output, settings, embed: dict, instruct,
                    how: dict) -> int:  # fmt: skip
    from ..evaluation.benchmarks import find_tasks
    from ..evaluation.benchmarks.runs import format_runs, run_benchmarks, write_summary
    from ..model.config import EmbedConfig
    from ..model.embedder import UniteEmbedder
    from ..settings import make

    specs = find_tasks(list(tasks))
    make(EmbedConfig, embed, "--embed")
    embedder = UniteEmbedder.load(model, **how)
    found, failed = run_benchmarks(
        embedder, specs, data_root, output, settings, embed, model, instruct
    )
    if found:
        table = format_runs(found)
        write_summary(output, found, table)
        click.echo(table)
    for name, error in failed.items():
        click.echo(f"{name} failed: {error}", err=True)
    return int(bool(failed))


def verify() -> click.Command:
    def run(model: str, example: str | None, media_root: Path, **given) -> int:
        from ..evaluation import verify as verification
        from ..model.loading import LoadConfig

        published = verification.example_of(model, example)
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
        epilog="Example: unite export runs/main/stage2/train/model exported",
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
