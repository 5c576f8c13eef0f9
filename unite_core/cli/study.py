"""The verb of studies: train and score arms in blocks of seeds, into one table."""

from __future__ import annotations

import click


def study() -> click.Command:
    from ..study.arms import STUDIES

    def run(name: str, size: str, part: str | None, show: bool, again: int | None) -> None:
        from ..study.again import make_again
        from ..study.execute import parts_of, run_part, run_study

        chosen = STUDIES[name]
        if size not in chosen.sizes:
            raise click.BadParameter(f"{size!r}: must be one of {', '.join(chosen.sizes)}")
        if show:
            click.echo("\n".join(parts_of(chosen, chosen.sizes[size])))
        elif again:
            found = {}
            for made, differs in make_again(chosen, size, again):
                found[made] = differs
                click.echo(f"{made}: " + (f"differs, {differs}" if differs else "equal to its row"))
            if any(found.values()):
                raise click.exceptions.Exit(1)
        elif part:
            click.echo(run_part(chosen, size, part))
        else:
            for done, path in run_study(chosen, size):
                click.echo(f"{done}: {path}")

    return click.Command(
        None,
        help=f"Train and score all arms of a study ({', '.join(STUDIES)}) and write its table.\n\n"
        "A killed study goes on with the part that it was in. Parts of one kind can run side by "
        "side, here or on other machines with the same folder; `make study` does so.",
        epilog="Example: unite study mask --size smoke",
        params=[
            click.Argument(["name"]),
            click.Option(["--size"], default="small", show_default=True,
                         help="smoke: minutes, on shapes; small: as in figures/study; full: the "
                         "paper's model on your data, for GPUs (a plan, not run yet)."),
            click.Option(["--part"], help="Only this part."),
            click.Option(["--list", "show"], is_flag=True, help="List the parts."),
            click.Option(["--again"], type=click.IntRange(min=1), metavar="N",
                         help="Make N drawn rows of the table again and compare."),
        ],
        callback=run,
    )  # fmt: skip
