"""The command `unite`: one verb for everything that can be done without a notebook.

`unite --help` imports nothing but click: a verb's module loads when that verb is asked for. Errors
are one line on stderr and exit code 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

__all__ = ["VERBS", "main"]

# each verb: the module of this package with the function that makes it, and its help
VERBS = {
    "train": ("models", "Train one stage on records or own data."),
    "encode": ("vectors", "Embed a corpus into vectors on disk."),
    "index": ("vectors", "Build a search index over encoded vectors."),
    "search": ("searching", "Search an index, or own data, by text, image or video."),
    "probe": ("vectors", "Fit which modality a query asks for, for factorised search."),
    "mine": ("vectors", "Find hard negatives for records."),
    "curate": ("data", "Clean, deduplicate, align and mix own data or a recipe's sources."),
    "split": ("data", "Split pairs into training and test data that share nothing."),
    "verify": ("models", "Compare a model with the numbers that its authors print."),
    "evaluate": ("measuring", "Score a model on own pairs or public benchmarks."),
    "gap": ("measuring", "Measure the modality gap of a model on pairs, or of two vector files."),
    "export": (
        "models",
        "Write a model for sentence-transformers, checked to give the same vectors.",
    ),
    "corpus": ("data", "Generate or fetch a corpus with pairs and retrieval tasks."),
    "study": ("study", "Train and score the arms of a study, or one part of it."),
    "run": ("notebooks", "Execute a notebook with parameters into a folder."),
    "sweep": ("notebooks", "Execute a notebook for every point of a grid of parameters."),
    "notebooks": ("notebooks", "Store, clean or publish the workbook's notebooks."),
}
_EPILOG = (
    "Your own data: split, train, evaluate, search. A first run: corpus, train, encode, index, "
    "search. "
    'Each verb has its own --help. Shell completion: eval "$(_UNITE_COMPLETE=bash_source unite)"'
    " (or zsh_source, fish_source)."
)


class _Verbs(click.Group):
    """The verbs by name; help comes from `VERBS`, so that listing them loads none."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module, _ = VERBS[name]
        command = getattr(importlib.import_module(f".{module}", __name__), name)()
        command.name = name
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, words) for name, (_, words) in VERBS.items()])


def _load_plugins(context: click.Context, option: click.Parameter, names: Sequence[str]) -> None:
    """Import modules of the user's, which register losses, corpora, adapters or benchmarks."""
    if names:
        sys.path.insert(0, os.getcwd())
    for name in names:
        importlib.import_module(name)


def _print_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        from unite_core import __version__

        click.echo(f"unite-workbook {__version__}")
        context.exit()


def _commands() -> click.Group:
    return _Verbs(
        "unite",
        help="Train, measure and look inside universal multimodal embedders.",
        epilog=_EPILOG,
        params=[
            click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
            click.Option(
                ["--plugin"], multiple=True, metavar="MODULE", callback=_load_plugins,
                help="Import a module of yours that registers a loss, a corpus or the like.",
            ),
            click.Option(
                ["--version"], is_flag=True, is_eager=True, expose_value=False,
                callback=_print_version, help="Show the version.",
            ),
        ],
        callback=lambda debug, plugin: None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a part failed, 2 an error, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _commands().main(arguments, prog_name="unite", standalone_mode=False)
    except click.ClickException as error:
        _fail(_usage(error))
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; the same command goes on where it can", 130)
    except Exception as error:
        if "--debug" in arguments:
            raise
        _fail(_one_line(error))
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return error.format_message() + (f" See: {context.command_path} --help" if context else "")


def _one_line(error: Exception) -> str:
    """What an error says; for one that no code of ours raises on purpose, how to report it."""
    words = "; ".join(" ".join(line.split()) for line in str(error).splitlines() if line.strip())
    if isinstance(error, ImportError):
        return f"{words}: install it (pip install 'unite-workbook[all]')"
    if isinstance(error, (ValueError, OSError, RuntimeError, ArithmeticError)) and words:
        return words
    return f"{type(error).__name__}: {words or 'no message'} (unite --debug shows where)"


def _fail(words: str, code: int = 2) -> None:
    click.echo(f"error: {words}", err=True)
    sys.exit(code)
