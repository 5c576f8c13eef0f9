"""The workbook from corpus to table: `snakemake --cores 2 --config corpus=emoji`.

Each rule's output is one results file, so that whatever else a killed rule left in its folder
(checkpoints above all) is still there when it goes on. Commands are `params`, so that a changed
setting, such as `--config learning_rate_1=5e-4`, runs its rule and what follows again.
"""

import os
import shlex
import sys

from unite_core.corpora import CORPORA

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
STUDY = {
    name: int(config.get(f"study_{name}", value))
    for name, value in {"pairs": 2000, "steps": 200, "seeds": 2}.items()
}

DATA = f"data/{CORPUS}"
RUN = os.environ.get("UNITE_RUNS", "runs") + "/" + ("main" if CORPUS == "emoji" else CORPUS)
STAGES = {"stage_1": f"{RUN}/stage1", "stage_2": f"{RUN}/stage2"}

# Notebooks that look at the finished model.
LOOK = {"inside": "02_inside", "loss": "03_loss_by_hand", "search": "10_search"}


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
        notebook_of("06_evaluation"),
        stage_1=rules.stage_1.output,
        stage_2=rules.stage_2.output,
    output:
        f"{RUN}/evaluation/results.json",
    params:
        run("06_evaluation", f"{RUN}/evaluation", **STAGES),
    threads: 2
    shell:
        "{params}"


rule gap:
    input:
        notebook_of("07_modality_gap"),
        evaluation=rules.evaluation.output,
    output:
        f"{RUN}/gap/results.json",
    params:
        run("07_modality_gap", f"{RUN}/gap", **STAGES),
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
        notebook_of("06_evaluation"),
        stage_2=rules.stage_2.output,
        controls=[f"{CONTROL}/{loss}/results.json" for loss in CONTROLS.values()],
    output:
        f"{CONTROL}/evaluation/results.json",
    params:
        run("06_evaluation", f"{CONTROL}/evaluation", **STAGES, controls=LISTED),
    threads: 2
    shell:
        "{params}"


rule gap_controls:
    input:
        notebook_of("07_modality_gap"),
        evaluation=rules.evaluation_controls.output,
    output:
        f"{CONTROL}/gap/results.json",
    params:
        run("07_modality_gap", f"{CONTROL}/gap", **STAGES, controls=LISTED),
    threads: 2
    shell:
        "{params}"


# Which pair types help which search: mixes of equal size, trained alike (`make study`).
rule study:
    input:
        notebook_of("08_which_data"),
        corpus=rules.corpus.output,
    output:
        f"{RUN}_study/results.json",
    params:
        run("08_which_data", f"{RUN}_study", **STUDY),
    threads: 2
    shell:
        "{params}"
