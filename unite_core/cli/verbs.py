"""The verbs of `unite`, one function each that makes a command; what a verb needs loads in it.

A verb that is told by a configuration is `config_command` over its declaration. The others list
their few arguments here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import as_pairs, config_command, from_options, options_of

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def train() -> click.Command:
    from ..train.config import TrainConfig

    def run(config) -> None:
        from ..distributed import leave_processes, processes
        from ..train.run import train

        model = train(config)
        if processes()[0] == 0:
            click.echo(model)
        leave_processes()

    return config_command(
        TrainConfig,
        "Train one stage; a run that was cut short goes on from its last checkpoint.",
        run,
        "unite train run.json --stage.max-steps 200 --output runs/stage1",
    )


def encode() -> click.Command:
    from ..search.config import EncodeConfig

    def run(config) -> None:
        from ..distributed import join_processes, leave_processes, processes
        from ..search.encode import encode_corpus

        join_processes()
        try:
            folder = encode_corpus(config)
            if processes()[0] == 0:
                click.echo(folder)
        finally:
            leave_processes()

    return config_command(
        EncodeConfig,
        "Embed a corpus into shards of vectors; goes on with the next shard after a kill.",
        run,
        "unite encode --model runs/main/stage2/train/model --data items.jsonl --output vectors",
    )


def index() -> click.Command:
    from ..search.config import IndexConfig

    def run(vectors: Path, output: Path, **given) -> None:
        from ..search.index import build_index
        from ..search.shards import ShardFolder

        built = build_index(ShardFolder(vectors), from_options(IndexConfig, given))
        built.save(output)
        counts = ", ".join(f"{count:,} {name}" for name, count in built.counts.items())
        click.echo(f"{output}: {counts}")

    return click.Command(
        None,
        help="Build a search index, one part for each modality, over vectors that encode wrote.",
        epilog="Example: unite index vectors index --kind hnsw",
        params=[
            click.Argument(["vectors"], type=click.Path(exists=True, file_okay=False)),
            click.Argument(["output"], type=_FOLDER),
            *options_of(IndexConfig),
        ],
        callback=run,
    )


def _add_to_query(context: click.Context, option: click.Parameter, values) -> None:
    """Collect the query's parts in the order in which they are given."""
    item = context.meta.setdefault("unite.item", {})
    if values:
        item[option.name] = list(values) if len(values) > 1 else values[0]


def search() -> click.Command:
    from ..data.modality import KEYS

    def run(index, model, embed, queries, output, media_root, modality, k, standardise, **_):
        item = click.get_current_context().meta["unite.item"]
        if bool(item) == bool(queries) or bool(queries) != bool(output):
            raise click.UsageError(
                "give one query by --text, --image or --video, or --queries with --output"
            )
        from ..model.embedder import UniteEmbedder
        from ..search import query as search_query
        from ..search.corpus import Corpus
        from ..search.index import load_index

        found = load_index(index)
        embedder = UniteEmbedder.load(model, **as_pairs(embed))
        search_query.check_model(found, embedder)
        options = {"k": k, "modalities": list(modality) or None, "standardise": standardise}
        options["media_root"] = media_root
        if item:
            results = search_query.search_items(found, embedder, [item], **options)
            click.echo(search_query.result_table(found, results))
            return
        corpus = Corpus(list(queries), take=("query",), media_root=media_root)
        total, _ = corpus.survey()
        lines = search_query.run_lines(found, embedder, corpus, **options)
        search_query.write_run(output, lines, total)

    parts = [
        click.Option([f"--{key}"], multiple=True, callback=_add_to_query, expose_value=True,
                     metavar="TEXT" if key == "text" else "FILE",
                     help=f"{key.capitalize()} of the query.")
        for key in KEYS
    ]  # fmt: skip
    return click.Command(
        None,
        help="Search an index with one query, or with a file of them into a TREC run.",
        epilog='Example: unite search index --model MODEL --text "a waving hand" --modality image',
        params=[
            click.Argument(["index"], type=click.Path(exists=True, file_okay=False)),
            click.Option(["--model"], required=True, help="Model that encoded the corpus."),
            *parts,
            click.Option(["--queries"], multiple=True, metavar="FILE", help="Items or records."),
            click.Option(["--output"], type=Path, help="TREC run of --queries."),
            click.Option(["--media-root"], default=".", show_default=True,
                         help="Folder that media paths are relative to."),
            click.Option(["--modality"], multiple=True,
                         help="Only candidates of this modality; may be repeated."),
            click.Option(["--k"], type=click.IntRange(1), default=10, show_default=True,
                         help="Results of a query."),
            click.Option(["--standardise"], is_flag=True,
                         help="Rank a mixed pool by scores standardised in each modality."),
            click.Option(["--embed"], multiple=True, metavar="NAME=VALUE",
                         help="Fields of EmbedConfig, as they were for encode."),
        ],
        callback=run,
    )  # fmt: skip


def mine() -> click.Command:
    from ..search.config import MineConfig

    def run(config) -> None:
        from ..search.hard_negatives import mine

        click.echo(mine(config))

    return config_command(
        MineConfig,
        "Find hard negatives for records among all their candidates.",
        run,
        "unite mine --model MODEL --data pairs.jsonl --output pairs_hard.jsonl --negatives 4",
    )


def curate() -> click.Command:
    def run(recipe: Path, workers: int, no_figures: bool) -> None:
        from ..curate.build import build_mix
        from ..curate.recipe import read_recipe

        plan = read_recipe(recipe)
        embed = _embed(plan.model) if plan.model else None
        done = build_mix(plan, recipe.parent, embed, None if no_figures else _draw_card, workers)
        click.echo((done.parent / "card.md").read_text(encoding="utf-8"))

    return click.Command(
        None,
        help="Make the training file that a recipe describes, and print its data card.",
        epilog="Example: unite curate recipe.json --workers 2",
        params=[
            click.Argument(["recipe"], type=_FILE),
            click.Option(["--workers"], type=click.IntRange(0), default=0, show_default=True,
                         help="Processes that decode media."),
            click.Option(["--no-figures"], is_flag=True, help="Leave figures out of the card."),
        ],
        callback=run,
    )  # fmt: skip


def _embed(model: str):
    from ..model.embedder import UniteEmbedder

    return UniteEmbedder.load(model).embed


def _draw_card(card, folder: Path) -> list[str]:
    from ..plots.curation import draw_card

    return draw_card(card, folder)


def evaluate() -> click.Command:
    def run(model, tasks, data_root, output, settings, embed, instruct, compare, list_tasks):
        from ..evaluation import benchmarks
        from ..evaluation.benchmarks import runs

        if list_tasks:
            click.echo(runs.task_table(benchmarks.TASKS))
            return 0
        if compare:
            first, second = (runs.read_runs(folder) for folder in compare)
            rows = runs.compare_runs(first, second)
            click.echo(runs.format_comparison(rows, first[0].model, second[0].model))
            return 0
        if not (model and tasks and output):
            raise click.UsageError("give a model, tasks and --output; or --compare; or --list")
        return _run_benchmarks(model, tasks, data_root, output, settings, as_pairs(embed), instruct)

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
        ],
        callback=run,
    )  # fmt: skip


def _run_benchmarks(model, tasks, data_root, output, settings, embed: dict, instruct) -> int:
    from ..evaluation.benchmarks import find_tasks
    from ..evaluation.benchmarks.runs import format_runs, run_benchmarks, write_summary
    from ..model.config import EmbedConfig
    from ..model.embedder import UniteEmbedder
    from ..settings import make

    specs = find_tasks(list(tasks))
    make(EmbedConfig, embed, "--embed")
    embedder = UniteEmbedder.load(model)
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


def corpus() -> click.Command:
    from ..corpora import CORPORA

    def run(name: str, root: Path | None, seed: int, option: tuple[str, ...]) -> None:
        root = root or Path("data", name)
        CORPORA[name].build(root, seed=seed, **as_pairs(option))
        click.echo(root)

    names = ", ".join(CORPORA)
    return click.Command(
        None,
        help=f"Generate or fetch a corpus with pairs and retrieval tasks: {names}.",
        epilog="Example: unite corpus shapes --root data/shapes --option records=200",
        params=[
            click.Argument(["name"]),
            click.Option(["--root"], type=_FOLDER,
                         help="Folder of the corpus.  [default: data/NAME]"),
            click.Option(["--seed"], type=click.IntRange(0), default=0, show_default=True,
                         help="Decides what is drawn."),
            click.Option(["--option"], multiple=True, metavar="NAME=VALUE",
                         help="Further settings of the corpus; may be repeated."),
        ],
        callback=run,
    )  # fmt: skip


_PARAMETER = {"nargs": 2, "multiple": True, "metavar": "NAME VALUE"}
_FORCE = {"is_flag": True, "help": "Repeat a finished run."}


def run() -> click.Command:
    def execute(notebook: Path, folder: Path, parameters, force: bool) -> None:
        from ..notebook.files import parse_parameters
        from ..notebook.runs import run_notebook

        values = parse_parameters(notebook, dict(parameters))
        run_notebook(notebook, values, folder.resolve(), force)

    return click.Command(
        None,
        help="Execute a notebook into a folder; a run that was cut short goes on.",
        epilog="Example: unite run notebooks/00_tour.ipynb runs/tour -p corpus shapes",
        params=[
            click.Argument(["notebook"], type=_FILE),
            click.Argument(["folder"], type=_FOLDER),
            click.Option(["-p", "parameters"], help="A parameter of the notebook.", **_PARAMETER),
            click.Option(["--force"], **_FORCE),
        ],
        callback=execute,
    )


def sweep() -> click.Command:
    def execute(notebook: Path, folder: Path, parameters, force: bool) -> None:
        from ..notebook.files import parse_parameters
        from ..notebook.runs import sweep

        grid: dict[str, list[Any]] = {}
        for name, value in parameters:
            grid.setdefault(name, []).append(parse_parameters(notebook, {name: value})[name])
        rows = sweep(notebook, grid, folder.resolve(), force)
        click.echo(f"{folder / 'sweep.csv'}: {len(rows)} runs")

    return click.Command(
        None,
        help="Execute a notebook for every combination of the given values, into one table.",
        epilog="Example: unite sweep notebooks/04_stage_1.ipynb runs/lr -p steps 50 -p steps 100",
        params=[
            click.Argument(["notebook"], type=_FILE),
            click.Argument(["folder"], type=_FOLDER),
            click.Option(["-p", "parameters"], required=True,
                         help="A value of a parameter; repeat for further ones.", **_PARAMETER),
            click.Option(["--force"], **_FORCE),
        ],
        callback=execute,
    )  # fmt: skip


def notebooks() -> click.Command:
    def store(paths) -> None:
        from ..notebook.runs import store_notebooks

        store_notebooks(list(paths))

    def clean(paths) -> None:
        from ..notebook.files import clean_notebook

        for path in paths:
            clean_notebook(path)

    def publish(folder: Path) -> None:
        from ..notebook.runs import publish_figures

        publish_figures(folder)

    def listed(required: bool) -> list[click.Parameter]:
        return [click.Argument(["paths"], nargs=-1, type=_FILE, required=required)]

    group = click.Group(None, help="Store, clean or publish the workbook's notebooks.")
    group.add_command(click.Command(
        "store", help="Execute notebooks with their defaults and store them; default: all.",
        params=listed(False), callback=store,
    ))  # fmt: skip
    group.add_command(click.Command(
        "clean", help="Remove what does not belong into a stored notebook, in place.",
        params=listed(True), callback=clean,
    ))  # fmt: skip
    group.add_command(click.Command(
        "publish", help="Copy the figures of a run, or of all runs in a folder, to figures/.",
        params=[click.Argument(["folder"], type=click.Path(exists=True, path_type=Path))],
        callback=publish,
    ))  # fmt: skip
    return group
