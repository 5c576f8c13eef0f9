"""Verbs that measure a model: evaluate on own data and public benchmarks, the modality gap."""

from __future__ import annotations

from pathlib import Path

import click

from .options import DataPath, as_pairs, load_options, loading, remembered

_FOLDER = click.Path(file_okay=False, path_type=Path)
_CHANCE = 0.2  # above it recall@k of a small pool says little


def evaluate() -> click.Command:
    def run(model, tasks, data, against, score, text, image, video, media_root, data_root, output,
            settings, embed, instruct, compare, list_tasks, card, **given):  # fmt: skip
        if list_tasks:
            from ..evaluation import benchmarks
            from ..evaluation.benchmarks import runs

            click.echo(runs.task_table(benchmarks.BENCHMARKS))
            return 0
        if compare:
            return _compare(*compare)
        how = loading(given)
        if data and model and not tasks:
            columns = {"text": text, "image": image, "video": video}
            models = [*against, model]
            _check_card(model, card)
            results = _own_data(
                models, data, columns, media_root, output, as_pairs(embed), how, score
            )
            return _note_results(model, results) if card else 0
        if not (model and tasks and output) or data or against or score != "cosine":
            raise click.UsageError(
                "give a model and --data of your own; or a model, tasks and --output; or --compare;"
                " or --list"
            )
        return _run_benchmarks(
            model, tasks, data_root, output, settings, as_pairs(embed), instruct, how
        )

    return remembered(click.Command(
        None,
        help="Score a model on your own pairs, run public benchmarks on it, or compare two runs."
        "\n\nWith --data: retrieval among the pairs, from either side, in a pool of the searched "
        "modality and in one of all, with intervals and chance; --against shows what a training "
        "bought. Without: TASKS are names of tasks or groups (see --list), or mteb:NAME for one of "
        "mteb's; finished tasks in the output folder are kept.",
        epilog="Example: unite evaluate runs/mine/model --data data/shapes/split/test.tasks.json "
        "--against tiny-stage1",
        params=_evaluate_options(),
        callback=run,
    ))  # fmt: skip


def _evaluate_options() -> list[click.Parameter]:
    from .sources import column_options, root_option

    return [
        click.Argument(["model"], required=False),
        click.Argument(["tasks"], nargs=-1),
        click.Option(["--data"], multiple=True, type=DataPath(), metavar="DATA",
                     help="Pairs (folder, CSV, JSON Lines, Parquet), or a file of tasks."),
        click.Option(["--against"], multiple=True, metavar="MODEL",
                     help="With --data: score this model, too, and the gain over it."),
        click.Option(["--score"], default="cosine", show_default=True,
                     type=click.Choice(["cosine", "factorised"]),
                     help="With --data: rank the pool of all modalities by the probability of "
                     "the modality, too, from the models' probes or routers."),
        *column_options(),
        root_option(),
        _card_option("results"),
        click.Option(["--data-root"], type=_FOLDER, default="data/benchmarks",
                     show_default=True, help="Folder of the benchmarks' data sets."),
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
    ]  # fmt: skip


def _compare(first: Path, second: Path) -> int:
    from ..evaluation.benchmarks import runs

    before, after = (runs.read_runs(folder) for folder in (first, second))
    rows = runs.compare_runs(before, after)
    click.echo(runs.format_comparison(rows, before[0].model, after[0].model))
    return 0


def _card_option(what: str) -> click.Option:
    return click.Option(
        ["--card"], is_flag=True, help=f"Write the {what} of --data into the model's README.md."
    )


def _check_card(model: str, card: bool) -> None:
    if card and not Path(model, "config.json").is_file():
        raise click.UsageError(f"--card writes into a model's folder, which {model} is not")


def _note_results(model: str, results: dict) -> int:
    from ..evaluation.model_card import add_results
    from .sources import say

    say(str(add_results(model, results)))
    return 0


def _own_data(models, data, columns, media_root, output, embed: dict, how: dict,
              score_by: str) -> dict:  # fmt: skip
    """Score models on pairs or tasks, the last one against those before it."""
    from ..files import working_in
    from .sources import check_names

    check_names(*models)
    factorised = _with_first_factor(models) if score_by == "factorised" else []
    tasks, root = _own_tasks(data, columns, media_root, output)
    from ..evaluation.results import save_results
    from ..evaluation.tasks import evaluate as score
    from ..model.embedder import UniteEmbedder

    results = {}
    for model in dict.fromkeys(models):
        embedder = UniteEmbedder.load(model, **how, **embed)
        scorers = _scorers(model, embedder) if model in factorised else {}
        results[model] = score(embedder, tasks, root, scorers=scorers)
    _show_results(results, tasks)
    if output:
        with working_in(output):
            for number, result in enumerate(results.values()):
                save_results(output / f"results-{number}.json", result)
        click.echo(output)
    return results


def _with_first_factor(models) -> list[str]:
    """The models that can have a factorised score, the evaluated one among them."""
    from ..search.query import has_first_factor, load_factorised

    *others, last = models
    load_factorised(last)
    for model in others:
        if not has_first_factor(model):
            click.echo(f"{model}: has neither probe nor router, so it is scored by cosine alone")
    return [*filter(has_first_factor, others), last]


def _scorers(model: str, embedder) -> dict:
    """The scores beside cosine; a probe must have been fitted for this embedder."""
    from functools import partial

    from ..search.blocks import model_key
    from ..search.factorised import factorised_scores
    from ..search.query import load_factorised

    found = load_factorised(model, key=model_key(embedder))
    by = partial(factorised_scores, first=found.first, temperature=found.temperature)
    return {"factorised": by}


def _show_results(results: dict, tasks) -> None:
    """Tables of all pools, and what the last model gains over each before it."""
    from ..evaluation.results import format_table, paired_gain, percent

    *before, (last, after) = results.items()
    metric, chance = _telling_metric(after, tasks)
    for pool in dict.fromkeys(score.pool for score in after.scores):
        scored = {name: result for name, result in results.items()
                  if any(score.pool == pool for score in result.scores)}  # fmt: skip
        for shown in dict.fromkeys(("recall@1", metric)):
            click.echo(format_table(scored, shown, pool) + "\n")
    if metric != "recall@10":
        click.echo(f"{metric}, not recall@10: in so small a pool chance alone reaches "
                   f"{chance:.0%} of recall@10")  # fmt: skip
    several = len({task.split for task in tasks}) > 1
    for name, result in before:
        for task in tasks:
            what = f"{task.name}, {task.split}" if several else task.name
            gain = paired_gain(result, after, task.name, task.split, metric)
            by_chance = after.score(task.name, task.split, metric).chance
            click.echo(f"{what}: {last} gains {percent(*gain, sign='+')} points of {metric} "
                       f"(chance {by_chance:.0%}) over {name}, single pool")  # fmt: skip


def _telling_metric(result, tasks) -> tuple[str, float]:
    """recall@k of the largest k of 1, 5, 10 whose chance is low in all tasks, and that of 10."""
    chance = {
        k: max(result.score(task.name, task.split, f"recall@{k}").chance for task in tasks)
        for k in (10, 5, 1)
    }
    k = next((k for k, share in chance.items() if share < _CHANCE), 1)
    return f"recall@{k}", chance[10]


def _own_tasks(data, columns, media_root, output):
    """Tasks of the files, and the folder of their media."""
    from .sources import find_sources, say, tasks_root, write_pairs

    if all(path.endswith("tasks.json") for path in data):
        from ..evaluation.tasks import read_tasks

        tasks = [task for path in data for task in read_tasks(path)]
        return tasks, tasks_root(data[0], tasks[0].queries + tasks[0].candidates, media_root)
    found = find_sources(data, columns, media_root)
    files = write_pairs(data, found, Path(output or ".unite", "pairs"))
    from ..data.pairs import PairDataset
    from ..evaluation.own_pairs import pair_families, pair_tasks

    root = found[0].media_root
    pairs = PairDataset(files, root)
    if pairs.bad:
        say(f"{len(pairs.bad)} pairs cannot be used, the first: {pairs.bad[0].message}")
    return pair_tasks(pairs, both_ways=True, families=pair_families(pairs)), root


def _run_benchmarks(model, tasks, data_root, output, settings, embed: dict, instruct,
                    how: dict) -> int:  # fmt: skip
    from ..evaluation.benchmarks import find_tasks
    from ..evaluation.benchmarks.runs import format_runs, run_benchmarks, write_summary
    from ..model.config import EmbedConfig
    from ..settings import make
    from .sources import check_names

    specs = find_tasks(list(tasks))
    make(EmbedConfig, embed, "--embed")
    check_names(model)
    from ..model.embedder import UniteEmbedder

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


def gap() -> click.Command:
    from .sources import column_options, root_option

    def run(sources, data, text, image, video, media_root, column, unpaired, k, output, card,
            **given):  # fmt: skip
        how = loading(given)
        if len(sources) == 2 and not data:
            from ..gap.vectors import load_vectors

            x, y = (load_vectors(path, column) for path in sources)
            tables = {" and ".join(Path(path).name for path in sources): (x, y, None)}
        elif len(sources) == 1 and data:
            _check_card(sources[0], card)
            columns = {"text": text, "image": image, "video": video}
            tables = _pair_vectors(sources[0], data, columns, media_root, how)
        else:
            raise click.UsageError("give a model and --data, or two files of vectors")
        found = _measure(tables, not unpaired, k, output)
        if card and data:
            from ..evaluation.model_card import add_gap
            from .sources import say

            say(str(add_gap(sources[0], found)))

    return remembered(click.Command(
        None,
        help="Measure the modality gap of a model on pairs, or of two files of vectors (.npy, "
        ".safetensors, .parquet), whose rows are pairs.\n\nEvery measure with its interval, its "
        "null and n; 50 different items of each modality are needed. docs/gap.md says how to read "
        "them.",
        epilog="Example: unite gap tiny-stage1 --data data/shapes/split/train.jsonl",
        params=[
            click.Argument(["sources"], nargs=-1, required=True, metavar="MODEL | X Y"),
            click.Option(["--data"], multiple=True, type=DataPath(), metavar="DATA",
                         help="Pairs (folder, CSV, JSON Lines, Parquet) that the model embeds."),
            *column_options(),
            root_option(),
            click.Option(["--column"], default="", metavar="NAME",
                         help="Tensor or column of the vectors in both files."),
            click.Option(["--unpaired"], is_flag=True, help="Rows of the two are no pairs."),
            click.Option(["--k"], type=click.IntRange(1), default=10, show_default=True,
                         help="Neighbours of the measures of neighbourhoods."),
            click.Option(["--output"], type=click.Path(dir_okay=False), metavar="FILE.json",
                         help="Write the measures as JSON, too."),
            _card_option("measures"),
            *load_options(),
        ],
        callback=run,
    ))  # fmt: skip


def _pair_vectors(model, data, columns, media_root, how: dict) -> dict:
    """{"text and image": (vectors, vectors, families)} of the pairs of each two modalities."""
    from .sources import check_names, find_sources, write_pairs

    check_names(model)
    found = find_sources(data, columns, media_root)
    files, root = write_pairs(data, found, Path(".unite", "pairs")), found[0].media_root
    from ..data.modality import modality_of
    from ..data.pairs import PairDataset
    from ..evaluation.own_pairs import pair_families
    from ..gap.vectors import MINIMUM
    from ..model.embedder import UniteEmbedder
    from ..search.pair_items import PairItems
    from .sources import say

    pairs = PairDataset(files, root)
    items, families = PairItems(pairs), pair_families(pairs)
    kinds: dict[tuple[int, int], list[tuple[int, int, str]]] = {}
    for place, pair in enumerate(pairs):
        sides = [(int(modality_of(pair.query)), int(items.queries[place])),
                 (int(modality_of(pair.candidate)), int(items.candidates[place]))]  # fmt: skip
        (one, x), (two, y) = sorted(sides)
        if one != two:
            kinds.setdefault((one, two), []).append((x, y, families[place]))
    usable = {kind: rows for kind, rows in kinds.items() if len(rows) >= MINIMUM}
    for kind, rows in kinds.items():
        if kind not in usable:
            say(f"{_kind_name(kind)}: {len(rows)} pairs, {MINIMUM} are needed")
    if not usable:
        raise ValueError(
            f"{', '.join(data)}: no {MINIMUM} pairs of two modalities, below which the measures "
            "show their bias; give more pairs"
        )
    vectors = UniteEmbedder.load(model, **how).embed(list(items), root)
    tables = {}
    for kind, rows in sorted(usable.items()):
        x, y, names = zip(*rows, strict=True)
        tables[_kind_name(kind)] = (vectors[list(x)], vectors[list(y)], list(names))
    return tables


def _kind_name(kind: tuple[int, int]) -> str:
    from ..data.modality import Modality

    return " and ".join(Modality(code).label for code in kind)


def _measure(tables: dict, paired: bool, k: int, output: str | None) -> dict:
    import warnings
    from dataclasses import asdict

    from ..files import write_json
    from ..gap.table import format_table, measure
    from .sources import say

    found = {}
    for name, (x, y, families) in tables.items():
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            found[name] = measure(x, y, paired, k, groups=families if paired else None)
        for warning in noted:
            say(f"{name}: {warning.message}")
        click.echo(f"{name}, intervals of 99 %\n{format_table(found[name])}\n")
    if output:
        rows = {name: {key: asdict(row) for key, row in table.items()}
                for name, table in found.items()}  # fmt: skip
        write_json(output, rows, indent=1)
    return found
