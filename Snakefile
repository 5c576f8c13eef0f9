"""The workbook from corpus to table: `snakemake --cores 2 --config corpus=emoji`.

Each rule's output is one results file, so that whatever else a killed rule left in its folder
(checkpoints above all) is still there when it goes on.
"""

import os
import sys

from unite_core.corpora import CORPORA

CORPUS = config.get("corpus", "emoji")
CORPORA[CORPUS]  # an unknown name is an error that lists the known ones
SEED = config.get("seed", 0)
STEPS_1 = config.get("steps_1", 420)
STEPS_2 = config.get("steps_2", 950)
STUDY = " ".join(
    f"-p {name} {config.get('study_' + name, value)}"
    for name, value in {"pairs": 2000, "steps": 200, "seeds": 2}.items()
)

DATA = f"data/{CORPUS}"
RUN = os.environ.get("UNITE_RUNS", "runs") + "/" + ("main" if CORPUS == "emoji" else CORPUS)
NOTEBOOK = f"{sys.executable} -m unite_core run {{input.notebook}}"
COMMON = f"-p corpus {CORPUS} -p data_root {DATA} -p seed {SEED}"

# Notebooks that look at the finished model.
LOOK = {"inside": "02_inside", "loss": "03_loss_by_hand", "search": "10_search"}


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
    threads: 2
    shell:
        f"{sys.executable} -m unite_core corpus {CORPUS} --root {DATA}"


rule tour:
    input:
        notebook="notebooks/00_tour.ipynb",
        corpus=rules.corpus.output,
    output:
        f"{RUN}/tour/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}/tour {COMMON}"


rule data:
    input:
        notebook="notebooks/01_what_is_in_the_data.ipynb",
        corpus=rules.corpus.output,
    output:
        f"{RUN}/data/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}/data {COMMON}"


rule stage_1:
    input:
        notebook="notebooks/04_stage_1.ipynb",
        corpus=rules.corpus.output,
    output:
        f"{RUN}/stage1/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}/stage1 {COMMON} -p steps {STEPS_1}"


rule stage_2:
    input:
        notebook="notebooks/05_stage_2.ipynb",
        stage_1=rules.stage_1.output,
    output:
        f"{RUN}/stage2/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}/stage2 {COMMON} -p steps {STEPS_2} -p start {RUN}/stage1"


rule look:
    wildcard_constraints:
        what="|".join(LOOK),
    input:
        notebook=lambda wildcards: f"notebooks/{LOOK[wildcards.what]}.ipynb",
        stage_2=rules.stage_2.output,
    output:
        f"{RUN}/{{what}}/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}/{{wildcards.what}} {COMMON} -p model {RUN}/stage2/train/model"


rule evaluation:
    input:
        notebook="notebooks/06_evaluation.ipynb",
        stage_1=rules.stage_1.output,
        stage_2=rules.stage_2.output,
    output:
        f"{RUN}/evaluation/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}/evaluation {COMMON} -p stage_1 {RUN}/stage1 -p stage_2 {RUN}/stage2"


rule gap:
    input:
        notebook="notebooks/07_modality_gap.ipynb",
        evaluation=rules.evaluation.output,
    output:
        f"{RUN}/gap/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}/gap {COMMON} -p stage_1 {RUN}/stage1 -p stage_2 {RUN}/stage2"


# What the mask does: stage 2 again with other losses, evaluation and gap of all (`make controls`).
CONTROL = f"{RUN}_controls"
CONTROLS = {"InfoNCE": "info_nce", "random mask": "random_mask"}
LISTED = ", ".join(f"{name}: {CONTROL}/{loss}" for name, loss in CONTROLS.items())
STAGES = f"-p stage_1 {RUN}/stage1 -p stage_2 {RUN}/stage2 -p controls '{LISTED}'"


rule controls:
    input:
        f"{CONTROL}/evaluation/results.json",
        f"{CONTROL}/gap/results.json",


rule control:
    wildcard_constraints:
        loss="|".join(CONTROLS.values()),
    input:
        notebook="notebooks/05_stage_2.ipynb",
        stage_1=rules.stage_1.output,
    output:
        f"{CONTROL}/{{loss}}/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {CONTROL}/{{wildcards.loss}} {COMMON} -p loss {{wildcards.loss}}"
        f" -p steps {STEPS_2} -p start {RUN}/stage1"


rule evaluation_controls:
    input:
        notebook="notebooks/06_evaluation.ipynb",
        stage_2=rules.stage_2.output,
        controls=[f"{CONTROL}/{loss}/results.json" for loss in CONTROLS.values()],
    output:
        f"{CONTROL}/evaluation/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {CONTROL}/evaluation {COMMON} {STAGES}"


rule gap_controls:
    input:
        notebook="notebooks/07_modality_gap.ipynb",
        evaluation=rules.evaluation_controls.output,
    output:
        f"{CONTROL}/gap/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {CONTROL}/gap {COMMON} {STAGES}"


# Which pair types help which search: mixes of equal size, trained alike (`make study`).
rule study:
    input:
        notebook="notebooks/08_which_data.ipynb",
        corpus=rules.corpus.output,
    output:
        f"{RUN}_study/results.json",
    threads: 2
    shell:
        f"{NOTEBOOK} {RUN}_study {COMMON} {STUDY}"
