"""The workbook from corpus to table: `snakemake --cores 2 --config corpus=emoji`.

Each rule's output is one results file, so that whatever else a killed rule left in its folder
(checkpoints above all) is still there when it goes on. Commands are `params`, so that a changed
setting, such as `--config learning_rate_1=5e-4`, runs its rule and what follows again.
"""

import os
import shlex
import sys

from unite_core.corpora import CORPORA
from unite_core.study import STUDIES, runs_of

CORPUS = config.get("corpus", "emoji")
CORPORA[CORPUS]  # an unknown name is an error that lists the known ones
SEED = int(config.get("seed", 0))
STAGE_1 = {
    "steps": int(config.get("steps_1", 420)),
    "learning_rate": float(config.get("learning_rate_1", 1e-3)),
}
STAGE_2 = {
    "steps": int(config.get("steps_2", 950)),
    "learning_rate": float(config.get("learning_rate_2", 8e-4)),
}

DATA = f"data/{CORPUS}"
RUN = os.environ.get("UNITE_RUNS", "runs") + "/" + ("main" if CORPUS == "emoji" else CORPUS)
STAGES = {"stage_1": f"{RUN}/stage1", "stage_2": f"{RUN}/stage2"}

# Notebooks that look at the finished model.
LOOK = {"inside": "02_inside", "loss": "03_loss_by_hand", "search": "11_search"}


def unite(*words):
    """A shell command with every word quoted."""
    return shlex.join([sys.executable, "-m", "unite_core", *map(str, words)])


def run(notebook, folder, **parameters):
    """The command that executes a notebook into a folder."""
    parameters = {"corpus": CORPUS, "data_root": DATA, "seed": SEED} | parameters
    given = [word for name, value in parameters.items() for word in ("-p", name, value)]
    return unite("run", notebook_of(notebook), folder, *given)


def notebook_of(name):
    return f"notebooks/{name}.ipynb"


rule all:
    input:
        f"{RUN}/tour/results.json",
        f"{RUN}/data/results.json",
        expand(f"{RUN}/{{what}}/results.json", what=LOOK),
        f"{RUN}/evaluation/results.json",
        f"{RUN}/gap/results.json",


rule corpus:
    output:
        f"{DATA}/manifest.json",
    params:
        unite("corpus", CORPUS, "--root", DATA),
    threads: 2
    shell:
        "{params}"


rule tour:
    input:
        notebook_of("00_tour"),
        corpus=rules.corpus.output,
    output:
        f"{RUN}/tour/results.json",
    params:
        run("00_tour", f"{RUN}/tour"),
    threads: 2
    shell:
        "{params}"


rule data:
    input:
        notebook_of("01_what_is_in_the_data"),
        corpus=rules.corpus.output,
    output:
        f"{RUN}/data/results.json",
    params:
        run("01_what_is_in_the_data", f"{RUN}/data"),
    threads: 2
    shell:
        "{params}"


rule stage_1:
    input:
        notebook_of("04_stage_1"),
        corpus=rules.corpus.output,
    output:
        f"{RUN}/stage1/results.json",
    params:
        run("04_stage_1", f"{RUN}/stage1", **STAGE_1),
    threads: 2
    shell:
        "{params}"


rule stage_2:
    input:
        notebook_of("05_stage_2"),
        stage_1=rules.stage_1.output,
    output:
        f"{RUN}/stage2/results.json",
    params:
        run("05_stage_2", f"{RUN}/stage2", **STAGE_2, start=STAGES["stage_1"]),
    threads: 2
    shell:
        "{params}"


rule look:
    wildcard_constraints:
        what="|".join(LOOK),
    input:
        lambda wildcards: notebook_of(LOOK[wildcards.what]),
        stage_2=rules.stage_2.output,
    output:
        f"{RUN}/{{what}}/results.json",
    params:
        lambda wildcards: run(
            LOOK[wildcards.what], f"{RUN}/{wildcards.what}", model=f"{RUN}/stage2/train/model"
        ),
    threads: 2
    shell:
        "{params}"


rule evaluation:
    input:
        notebook_of("06_scores"),
        stage_1=rules.stage_1.output,
        stage_2=rules.stage_2.output,
    output:
        f"{RUN}/evaluation/results.json",
    params:
        run("06_scores", f"{RUN}/evaluation", **STAGES),
    threads: 2
    shell:
        "{params}"


rule gap:
    input:
        notebook_of("09_modality_gap"),
        evaluation=rules.evaluation.output,
    output:
        f"{RUN}/gap/results.json",
    params:
        run("09_modality_gap", f"{RUN}/gap", **STAGES),
    threads: 2
    shell:
        "{params}"


# What the mask does: stage 2 again with other losses, evaluation and gap of all (`make controls`).
CONTROL = f"{RUN}_controls"
CONTROLS = {"InfoNCE": "info_nce", "random mask": "random_mask"}
LISTED = ", ".join(f"{name}: {CONTROL}/{loss}" for name, loss in CONTROLS.items())


rule controls:
    input:
        f"{CONTROL}/evaluation/results.json",
        f"{CONTROL}/gap/results.json",


rule control:
    wildcard_constraints:
        loss="|".join(CONTROLS.values()),
    input:
        notebook_of("05_stage_2"),
        stage_1=rules.stage_1.output,
    output:
        f"{CONTROL}/{{loss}}/results.json",
    params:
        lambda wildcards: run(
            "05_stage_2", f"{CONTROL}/{wildcards.loss}",
            loss=wildcards.loss, **STAGE_2, start=STAGES["stage_1"],
        ),
    threads: 2
    shell:
        "{params}"


rule evaluation_controls:
    input:
        notebook_of("06_scores"),
        stage_2=rules.stage_2.output,
        controls=[f"{CONTROL}/{loss}/results.json" for loss in CONTROLS.values()],
    output:
        f"{CONTROL}/evaluation/results.json",
    params:
        run("06_scores", f"{CONTROL}/evaluation", **STAGES, controls=LISTED),
    threads: 2
    shell:
        "{params}"


rule gap_controls:
    input:
        notebook_of("09_modality_gap"),
        evaluation=rules.evaluation_controls.output,
    output:
        f"{CONTROL}/gap/results.json",
    params:
        run("09_modality_gap", f"{CONTROL}/gap", **STAGES, controls=LISTED),
    threads: 2
    shell:
        "{params}"


# The studies (docs/study.md): `make study`, or one of them by its table. Runs take one thread each
# and any number goes side by side; on a cluster: --executor slurm, or cluster-generic.
SIZE = config.get("size", "small")
NOTEBOOKS = {"data": "13_which_data", "mask": "14_does_the_mask_help"}
HOME = os.environ.get("UNITE_RUNS", "runs") + "/study/{study}-" + SIZE


def table(study):
    """The table that a study of this size writes."""
    folder = "figures/study" if SIZE == "small" else HOME.format(study=study)
    return f"{folder}/{study}.parquet"


def part(study, name):
    return unite("study", study, "--size", SIZE, "--part", name)


def first_stage(wildcards):
    """What a run goes on from."""
    if not STUDIES[wildcards.study].shared_stage_1:
        return f"{HOME}/vision/index.json"
    return f"{HOME}/stage1/{wildcards.run.rpartition('-')[2]}/model/config.json"


def runs(study):
    chosen = STUDIES[study]
    return [f"{HOME.format(study=study)}/runs/{run.name}/row.json"
            for run in runs_of(chosen, chosen.sizes[SIZE])]


rule study:
    input:
        expand(f"{RUN}_study/{{study}}/results.json", study=NOTEBOOKS),


rule study_prepare:
    output:
        f"{HOME}/vision/index.json",
    params:
        lambda wildcards: part(wildcards.study, "prepare"),
    threads: 2
    shell:
        "{params}"


rule study_stage_1:
    input:
        f"{HOME}/vision/index.json",
    output:
        f"{HOME}/stage1/{{seed}}/model/config.json",
    params:
        lambda wildcards: part(wildcards.study, f"stage1-{wildcards.seed}"),
    threads: 1
    shell:
        "{params}"


rule study_run:
    input:
        first_stage,
    output:
        f"{HOME}/runs/{{run}}/row.json",
    params:
        lambda wildcards: part(wildcards.study, f"run-{wildcards.run}"),
    threads: 1
    shell:
        "{params}"


for study in NOTEBOOKS:

    rule:
        name:
            f"study_table_{study}"
        input:
            runs(study),
        output:
            table(study),
        params:
            part(study, "table"),
        threads: 1
        shell:
            "{params}"


rule study_notebook:
    wildcard_constraints:
        study="|".join(NOTEBOOKS),
    input:
        lambda wildcards: notebook_of(NOTEBOOKS[wildcards.study]),
        table=lambda wildcards: table(wildcards.study),
    output:
        f"{RUN}_study/{{study}}/results.json",
    params:
        lambda wildcards: unite(
            "run", notebook_of(NOTEBOOKS[wildcards.study]), f"{RUN}_study/{wildcards.study}",
            "-p", "table", table(wildcards.study).removesuffix(".parquet"),
        ),
    threads: 2
    shell:
        "{params}"
