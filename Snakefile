"""The workbook from corpus to table: `snakemake --cores 2 --config corpus=emoji`.

Every notebook is executed with its defaults, which are the real run; only what differs is given:
another corpus, seed or place, and `--config steps_1=60 learning_rate_2=5e-4 router_weight_2=0` of
the stages. What a notebook needs follows from its parameters. Each rule's output is one results
file, so that whatever else a killed rule left in its folder (checkpoints above all) is still there
when it goes on. Commands are `params`, so that a changed setting runs its rule and what follows
again.
"""

import os
import shlex
import sys
from pathlib import Path

from unite_core.corpora import CORPORA
from unite_core.notebook.files import parameter_names
from unite_core.study import STUDIES, runs_of

CORPUS = config.get("corpus", "emoji")
CORPORA[CORPUS]  # an unknown name is an error that lists the known ones
GIVEN = {} if CORPUS == "emoji" else {"corpus": CORPUS}
if "seed" in config:
    GIVEN["seed"] = int(config["seed"])

DATA = f"data/{CORPUS}"
RUN = os.environ.get("UNITE_RUNS", "runs") + "/" + ("main" if CORPUS == "emoji" else CORPUS)
STAGES = {"stage_1": f"{RUN}/stage1", "stage_2": f"{RUN}/stage2"}
EVALUATED = f"{RUN}/evaluation"  # its vectors and scores are read by notebooks with evaluation_run

# Notebooks by the folder of their run; those of studies, with the tables that their parameters name,
# have rules of their own, below.
STUDY_NOTEBOOKS = {"13_which_data": {"table": "data"},
                   "14_does_the_mask_help": {"table": "mask", "confirmation": "confirmation"}}
FOLDERS = {"04_stage_1": "stage1", "05_stage_2": "stage2", "06_scores": "evaluation",
           "09_modality_gap": "gap"}
BY_FOLDER = {
    FOLDERS.get(path.stem, path.stem[3:]): path.stem
    for path in sorted(Path("notebooks").glob("*.ipynb"))
    if path.stem not in STUDY_NOTEBOOKS
}
LATER = {folder: name for folder, name in BY_FOLDER.items() if not name.startswith(("04", "05"))}


def unite(*words):
    """A shell command with every word quoted."""
    return shlex.join([sys.executable, "-m", "unite_core", *map(str, words)])


def notebook_of(name):
    return f"notebooks/{name}.ipynb"


def run(name, folder, **parameters):
    """The command that executes a notebook into a folder, with parameters that it has."""
    known = parameter_names(notebook_of(name))
    parameters = {key: value for key, value in (GIVEN | parameters).items() if key in known}
    given = [word for key, value in parameters.items() for word in ("-p", key, value)]
    return unite("run", notebook_of(name), folder, *given)


def stage(number):
    """Parameters of a stage's notebook that `--config` changes."""
    kinds = {"steps": int, "learning_rate": float, "router_weight": float}
    names = {name: f"{name}_{number}" for name in kinds}
    return {name: kinds[name](config[key]) for name, key in names.items() if key in config}


def trained(name):
    """Which trained models a later notebook reads: those of its parameters."""
    known = parameter_names(notebook_of(name))
    if "model" in known and CORPUS != "emoji":  # the shipped model knows emoji only
        return {"model": f"{RUN}/stage2/train/model"}
    read = STAGES | {"evaluation_run": EVALUATED}
    return {key: folder for key, folder in read.items() if key in known}


def needs(wildcards):
    """The notebook, and the corpus, stages and evaluation that its parameters name."""
    name = LATER[wildcards.folder]
    wanted = [notebook_of(name)]
    wanted += [f"{DATA}/manifest.json"] * ("corpus" in parameter_names(notebook_of(name)))
    given = trained(name)
    wanted += [f"{EVALUATED}/results.json"] * ("evaluation_run" in given)
    return wanted + [f"{STAGES['stage_2']}/results.json"] * bool(given)


rule all:
    input:
        expand(f"{RUN}/{{folder}}/results.json", folder=BY_FOLDER),


rule corpus:
    output:
        f"{DATA}/manifest.json",
    params:
        unite("corpus", CORPUS, "--root", DATA),
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
        run("04_stage_1", f"{RUN}/stage1", **stage(1)),
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
        run("05_stage_2", f"{RUN}/stage2", **stage(2), start=STAGES["stage_1"]),
    threads: 2
    shell:
        "{params}"


rule notebook:
    wildcard_constraints:
        folder="|".join(LATER),
    input:
        needs,
    output:
        f"{RUN}/{{folder}}/results.json",
    params:
        lambda wildcards: run(
            LATER[wildcards.folder], f"{RUN}/{wildcards.folder}", **trained(LATER[wildcards.folder])
        ),
    threads: 2
    shell:
        "{params}"


# What the mask does: stage 2 again with other losses, evaluation and gap of all (`make controls`).
CONTROL = f"{RUN}_controls"
CONTROLS = {"InfoNCE": "info_nce", "random mask": "random_mask"}
LISTED = ", ".join(f"{name}: {CONTROL}/{loss}" for name, loss in CONTROLS.items())
COMPARED = {"evaluation": "06_scores", "one_index": "07_one_index",
            "is_it_real": "08_is_it_real", "gap": "09_modality_gap"}
READS = ("one_index", "is_it_real")  # the evaluation, instead of making one


rule controls:
    input:
        expand(f"{CONTROL}/{{what}}/results.json", what=COMPARED),


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
            loss=wildcards.loss, **stage(2), start=STAGES["stage_1"],
        ),
    threads: 2
    shell:
        "{params}"


rule compared:
    wildcard_constraints:
        what="|".join(COMPARED),
    input:
        lambda wildcards: notebook_of(COMPARED[wildcards.what]),
        stage_2=rules.stage_2.output,
        controls=[f"{CONTROL}/{loss}/results.json" for loss in CONTROLS.values()],
        evaluation=lambda wildcards: (
            [f"{CONTROL}/evaluation/results.json"] * (wildcards.what in READS)
        ),
    output:
        f"{CONTROL}/{{what}}/results.json",
    params:
        lambda wildcards: run(
            COMPARED[wildcards.what], f"{CONTROL}/{wildcards.what}", **STAGES, controls=LISTED,
            evaluation_run=f"{CONTROL}/evaluation",
        ),
    threads: 2
    shell:
        "{params}"


# The studies (docs/study.md): `make study`, or one of them by its table. Runs take one thread each
# and any number goes side by side. On a cluster, whose nodes share this folder: pip install
# snakemake-executor-plugin-slurm, then snakemake --executor slurm --jobs 50 --config size=full -- study
SIZE = config.get("size", "small")
HOME = os.environ.get("UNITE_RUNS", "runs") + "/study/{study}-" + SIZE


def table(study):
    """The table of this folder's runs; rows of `small` that figures/study lacks are added there."""
    return f"{HOME.format(study=study)}/{study}.parquet"


def part(study, name):
    return unite("study", study, "--size", SIZE, "--part", name)


def first_stage(wildcards):
    """What a run goes on from."""
    if not STUDIES[wildcards.study].shared_stage_1:
        return f"{HOME}/vision/index.json"
    return f"{HOME}/stage1/{wildcards.run.rpartition('-')[2]}.done"


def runs(study):
    chosen = STUDIES[study]
    return [f"{HOME.format(study=study)}/runs/{run.name}/row.json"
            for run in runs_of(chosen, chosen.sizes[SIZE])]


rule study:
    input:
        expand(f"{RUN}_study/{{notebook}}/results.json", notebook=STUDY_NOTEBOOKS),


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
        # a file beside the folder: snakemake makes the folders of outputs, and an empty `model` is none
        touch(f"{HOME}/stage1/{{seed}}.done"),
    params:
        lambda wildcards: part(wildcards.study, f"stage1-{wildcards.seed}"),
    threads: 1
    shell:
        "OMP_NUM_THREADS={threads} {params}"


rule study_run:
    input:
        first_stage,
    output:
        f"{HOME}/runs/{{run}}/row.json",
    params:
        lambda wildcards: part(wildcards.study, f"run-{wildcards.run}"),
    threads: 1
    shell:
        "OMP_NUM_THREADS={threads} {params}"


for study in STUDIES:

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


def study_tables(wildcards):
    return {name: table(of) for name, of in STUDY_NOTEBOOKS[wildcards.notebook].items()}


def run_study_notebook(wildcards):
    """The command that executes a notebook on its tables."""
    given = [word for name, path in study_tables(wildcards).items()
             for word in ("-p", name, path.removesuffix(".parquet"))]
    return unite("run", notebook_of(wildcards.notebook), f"{RUN}_study/{wildcards.notebook}", *given)


rule study_notebook:
    wildcard_constraints:
        notebook="|".join(STUDY_NOTEBOOKS),
    input:
        unpack(study_tables),
        notebook=lambda wildcards: notebook_of(wildcards.notebook),
    output:
        f"{RUN}_study/{{notebook}}/results.json",
    params:
        run_study_notebook,
    threads: 2
    shell:
        "{params}"
