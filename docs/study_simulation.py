"""Measure how often the studies' tests and intervals err; writes study_simulation.md and figures.

    python docs/study_simulation.py

Takes about five minutes on one core. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

from unite_core.evaluation.families import effective_families, joint_effective_families
from unite_core.plots.common import use_style
from unite_core.plots.study import plot_power, plot_rates
from unite_core.study import statistics
from unite_core.study.simulation import (
    STUDY_FAMILIES,
    Noise,
    family_wise_errors,
    interval_coverage,
    re_estimated_rejections,
    rejections,
    simulate,
    winner_rejections,
)
from unite_core.tables import markdown_table

DOCS = Path(__file__).parent
MANY, SOME, FEW = 4000, 1000, 20000  # replicates: of tests, of intervals, of endpoints alone
BLOCKS = (3, 6, 10)
INTERVAL_BLOCKS = (2, 3, 5, 6, 10)
LEVELS = (0.05, 0.05 / 6)
STRUCTURES = {
    "queries alone": Noise(),
    "+ block": Noise(block=0.003),
    "+ much block": Noise(block=0.012),
    "+ families by arm": Noise(family_by_arm=0.1),
    "+ both": Noise(family_by_arm=0.05, block=0.003),
}
SHARES = (0.0, 0.25, 0.5, 0.75)
CORRELATIONS = (0.0, 0.25, 0.5, 0.75)


PAGE = """# How often the studies' statistics err

Made by `python docs/study_simulation.py` (`unite_core/study/simulation.py`); do not edit. Studies
are simulated with known effects, and analysed by the code that analyses the [studies](study.md).

[What is simulated](#what-is-simulated) · [False positives](#false-positives) ·
[Intervals](#intervals) · [Blocks that share a stage 1](#blocks-that-share-a-stage-1) ·
[Power](#power) · [Several tests](#several-tests) · [The winner](#the-winner)

## What is simulated

Two arms answer the queries of some tasks; an endpoint is the mean of their recalls. A query is
a hit where a sum of normal variables is below a threshold: how hard its family is (variance .5),
how hard it is itself (.5), what the order of data in a block does to it in both arms (.3), and
the run's own noise (1). Where it says so, added to that are an arm's luck in a block for all
queries ("block" .003, "much block" .012), its luck with a stage 1, and families that one arm is
better at (.1, or .05 in "both"). Recall is 50 % on average. Sizes of families are those of the
studies (of the mask on the concept split), and large families are shared by the tasks. P1 is four
tasks; P3 (and P2) seven, of which some have few and large families; *plain* are the four of the
study of data, on two splits. Families of the tasks are the same by their rank in size, so there
are fewer of them in all than in the studies (193, 195 and 306), with as many effective ones (42,
28 and 60):

{sizes}

All seeds are 0. {many} studies for each rate of a test (standard error .3 points at 5 %), {some}
for each coverage (.7 points at 95 %), {few} where only endpoints are drawn.

## False positives

Two-sided paired *t* of block differences at 5 %, blocks with a stage 1 each, no effect. SD is that
of a block's difference, in points:

{false_positives}

Binary hits and few blocks do no harm. Queries alone give blocks nearly the spread of two points
that the plan assumes.

## Intervals

Coverage (%) of nominal 95 %, true effect 3 points. *t* is over blocks, and its truth is the
effect **on these queries**: it does not say that other families would show it. The other two are
for other families, too. *Blocks + families* is `blocks_families_interval`: the variance of the
mean over blocks plus that over draws of families, joint across tasks, with *t* by Satterthwaite's
degrees of freedom. *Percentiles* are those of draws of blocks and families, the product
bootstrap.

{coverages}

The product bootstrap counts the chance in single queries three times and is too wide where there
is little else; with few blocks that differ much it is too narrow. So `blocks_families_interval`
stands beside the tests. It is conservative, too, where queries are all the noise, since it counts
their chance twice. Families count there as many as are effective, which matters for P3. Of two
blocks, and of three that differ much, it covers less than it says, so `verdicts` gives it from five
on; the studies have six and five, the confirmation two.

## Blocks that share a stage 1

From here on P1 alone. Six blocks from three stages 1, standard deviation of a block's luck fixed
(variance .006), a share of it from stage 1; no effect. Percent of studies:

{stage_1}

As if all six were independent, the *t* finds too much as soon as stage 1 matters. The *t* of the
three means holds, but with 2 degrees of freedom it shows little. A stage 1 for each block costs
three short trainings more and has neither fault, so the studies have that.

![Error rates by what blocks share, and of selected winners](figures/study_errors.svg)

## Power

![Power over the true difference](figures/study_power.svg)

Dots are {some} simulated studies each ("queries alone"), lines the noncentral *t* at their
spread. With a standard deviation of 2 points, a power of 80 % needs, at 5 % and at 5/6 %:
{planned[0]} and {planned[1]} points with 3 blocks, {planned[2]} and {planned[3]} with 6,
{planned[4]} and {planned[5]} with 10.

Tests with a margin of 3 points at 5 %, 6 blocks, share of studies that show it:

{margins}

## Several tests

Six tests as planned for the mask, with their common arms, endpoints of a run correlated with .5,
6 independent blocks, a spread of 2 points:

{holm}

The number of blocks by the rule (two blocks, pooled deviation above 2.5 points: 10 instead of 6),
first test, no effect:

{re_estimation}

The rule adds no error. Two blocks know the deviation badly, so it often gives 10 blocks where 6
would do, and the reverse.

## The winner

The winner is chosen on development and tested on concept: other queries, but the same runs. Where
a run that is lucky on one is lucky on the other, the choice carries luck into the test. Seven
arms without any difference, 6 blocks; share of studies in which the winner is "better" than the
first arm at 5 %, two-sided, so that 2.5 % are due:

{winner}

The study chose among 29 arms with scores, so this is a lower bound. A seventh of the winners are
the first arm itself, hence less than 2.5 % in other blocks. So test 5
is read together with the confirmation of the winner in runs of its own.
"""


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def false_positives() -> str:
    rows = []
    for name, noise in list(STRUCTURES.items())[:3]:
        for blocks in BLOCKS:
            row = [name, blocks]
            for endpoint in STUDY_FAMILIES:
                studies = simulate(noise, blocks=blocks, replicates=MANY, endpoint=endpoint)
                drawn = studies.by_block()
                spread = 100 * drawn.var(-1, ddof=1).mean() ** 0.5
                row += [f"{spread:.1f}", percent(rejections(drawn))]
            rows.append(row)
    head = [f"{name}: {what}" for name in STUDY_FAMILIES for what in ("SD", "p < .05 (%)")]
    return markdown_table(rows, ["noise", "blocks", *head], 1)


def coverages() -> str:
    rows = []
    for name, noise in STRUCTURES.items():
        for blocks in INTERVAL_BLOCKS:
            row = [name, blocks]
            for endpoint in STUDY_FAMILIES:
                studies = simulate(noise, 0.03, blocks, replicates=SOME, endpoint=endpoint)
                row += map(percent, interval_coverage(studies, 0.03, 600).values())
            rows.append(row)
    ways = ("t", "blocks + families", "percentiles")
    head = [f"{name}: {way}" for name in STUDY_FAMILIES for way in ways]
    return markdown_table(rows, ["noise", "blocks", *head], 1)


def shared_stage_1() -> tuple[str, dict]:
    rows, curves = [], {"t over 6 blocks": {}, "t over 3 means": {}}
    for share in SHARES:
        noise = Noise(block=0.006 * (1 - share), stage_1=0.006 * share)
        studies = simulate(noise, seeds=3, replicates=MANY)
        drawn = studies.by_block()
        over = (rejections(drawn), rejections(drawn, studies.seeds))
        for curve, value in zip(curves.values(), over, strict=True):
            curve[share] = value
        part = simulate(noise, seeds=3, replicates=SOME)
        found = interval_coverage(part, 0.0, 600)
        low, high = statistics.t_interval(part.by_block())
        over_blocks = ((low <= part.expected) & (part.expected <= high)).mean()
        rows.append([f"{100 * share:.0f} %", *map(percent, over), percent(over_blocks),
                     percent(found["t"]), percent(found["resampled"]),
                     percent(found["percentiles"])])  # fmt: skip
    head = ["of the luck is stage 1's", "p < .05, 6 blocks", "p < .05, 3 means",
            "covers: t, 6 blocks", "t, 3 means", "blocks + families", "percentiles"]  # fmt: skip
    return markdown_table(rows, head, 1), curves


def powers() -> list[dict]:
    rows = []
    for blocks in BLOCKS:
        for effect in (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06):
            drawn = simulate(Noise(), effect, blocks, replicates=SOME).by_block()
            spread = drawn.var(-1, ddof=1).mean() ** 0.5
            for level in LEVELS:
                formula = statistics.power(effect, blocks, spread, level) if effect else level
                rows.append({"blocks": blocks, "effect": effect, "level": level, "formula": formula,
                             "power": rejections(drawn, level=level),
                             "deviation": spread})  # fmt: skip
    return rows


def margins() -> str:
    rows = []
    for effect in (-0.03, 0.0, 0.03):
        drawn = simulate(Noise(), effect, 6, replicates=MANY).by_block()
        not_worse = rejections(drawn, kind="non-inferior", margin=0.03)
        equal = rejections(drawn, kind="equivalent", margin=0.03)
        rows.append([f"{100 * effect:+.0f}", percent(not_worse), percent(equal)])
    head = ["true difference", "not worse by 3 points (%)", "within ±3 points (%)"]
    return markdown_table(rows, head, 0)


def holm_errors() -> str:
    rows = []
    for name, effects in (
        ("none of the six is true", [0] * 6),
        ("1 and 2 are true (4 points)", [0.04, 0.04, 0, 0, 0, 0]),
    ):
        rows.append([name, *map(percent, family_wise_errors(effects, replicates=MANY))])
    return markdown_table(rows, ["", "any error, Holm (%)", "uncorrected (%)"], 1)


def re_estimation() -> str:
    rows = []
    for deviation in (0.015, 0.02, 0.025, 0.03):
        errors, more = re_estimated_rejections(deviation, FEW)
        rows.append([f"{100 * deviation:.1f}", percent(more), percent(errors)])
    return markdown_table(rows, ["true SD (points)", "10 blocks (%)", "p < .05 (%)"], 0)


def winners() -> tuple[str, dict]:
    curves = {
        "same runs": {value: winner_rejections(value, replicates=FEW) for value in CORRELATIONS},
        "other blocks": {
            value: winner_rejections(value, held_out=True, replicates=FEW) for value in CORRELATIONS
        },
    }
    rows = [[f"{value:.2f}", *(percent(curve[value]) for curve in curves.values())]
            for value in CORRELATIONS]  # fmt: skip
    head = ["correlation", "tested in the same runs (%)", "in other blocks (%)"]
    return markdown_table(rows, head, 0), curves


def sizes() -> str:
    rows = []
    for endpoint in STUDY_FAMILIES:
        drawn = simulate(Noise(), replicates=1, endpoint=endpoint).families
        labels = {name: families.tolist() for name, families in drawn.items()}
        rows += [[f"{endpoint}: {name}", len(of), len(set(of)), f"{effective_families(of):.1f}"]
                 for name, of in labels.items()]  # fmt: skip
        joint = f"{joint_effective_families(labels):.1f}"
        rows.append([f"*{endpoint}, all*", sum(map(len, labels.values())),
                     len({label for of in labels.values() for label in of}), joint])  # fmt: skip
    return markdown_table(rows, ["task", "queries", "families", "effective"], 1)


def main() -> None:
    use_style()
    (DOCS / "figures").mkdir(exist_ok=True)
    stage_1, shared = shared_stage_1()
    winner, selected = winners()
    figure, ax = plt.subplots(figsize=(7, 3.2))
    rows = powers()
    spread = next(row["deviation"] for row in rows if row["blocks"] == 6)
    shown = [percent(statistics.detectable_difference(6, spread, level)) for level in LEVELS]
    title = (
        f"Six blocks show {shown[0]} points in 80 % of studies, {shown[1]} after Holm's first step"
    )
    plot_power(rows, ax, title)
    save(figure, "study_power")
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.9))
    plot_rates(shared, 0.05, axes[0], "share of a block's luck that is stage 1's",
               "false positives (%)", "Blocks in pairs err too often")  # fmt: skip
    plot_rates(selected, 0.025, axes[1], "correlation of development and test in a run",
               "winners without merit (%)", "A winner needs runs of its own")  # fmt: skip
    save(figure, "study_errors")
    planned = [percent(statistics.detectable_difference(n, 0.02, level)) for n in BLOCKS
               for level in LEVELS]  # fmt: skip
    filled = PAGE.format(
        sizes=sizes(), false_positives=false_positives(), coverages=coverages(), stage_1=stage_1,
        margins=margins(), holm=holm_errors(), re_estimation=re_estimation(), winner=winner,
        many=MANY, some=SOME, few=FEW, planned=planned,
    )  # fmt: skip
    (DOCS / "study_simulation.md").write_text(filled, encoding="utf-8")


def save(figure, name: str) -> None:
    figure.savefig(DOCS / "figures" / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
