"""The ready launch configurations are whole, agree with the recipes, and start what they say."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from tests.train.test_recipes import FOLDER, recipe
from unite_core.settings import read_config
from unite_core.train.config import TrainConfig

LAUNCH = FOLDER / "launch"


def test_accelerate_reads_one_node_and_it_leaves_precision_to_the_recipe():
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(LAUNCH / "one_node.yaml"))
    assert (config.num_machines, config.num_processes) == (1, 8)
    assert (str(config.distributed_type.value), config.mixed_precision) == ("MULTI_GPU", "no")
    fields = yaml.safe_load((LAUNCH / "one_node.yaml").read_text(encoding="utf-8"))
    assert all(hasattr(config, name) for name in fields)
    for size in ("2b", "7b"):
        for stage in (1, 2):
            named = recipe(f"multi_gpu_{size}_stage{stage}")
            assert named.stage.batch_size * config.num_processes == named.global_batch_size


@pytest.mark.parametrize("stage", [1, 2])
def test_sharded_7b_is_the_recipe_with_its_frozen_weights_spread(stage):
    sharded = read_config(TrainConfig, LAUNCH / f"sharded_7b_stage{stage}.json")
    whole = recipe(f"multi_gpu_7b_stage{stage}")
    model = whole.model.replace("multi_gpu", "sharded")
    output = f"runs/sharded_7b_stage{stage}"
    assert sharded == replace(whole, shard_frozen=True, output=output, model=model)
    assert not whole.shard_frozen


def started(tmp_path, nodes, arguments):
    """What slurm.sbatch starts on so many nodes of 8 GPUs, with SLURM's commands replaced."""
    commands = {
        "srun": 'printf "%s\\n" "$@" "threads=$OMP_NUM_THREADS"',
        "scontrol": f"for i in $(seq {nodes}); do echo node$i; done",
    }
    for name, line in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": f"node[1-{nodes}]", "SLURM_NNODES": str(nodes),
             "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_ID": "17",
             "SLURM_CPUS_PER_TASK": "96"}  # fmt: skip
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MASTER_PORT")}
    return subprocess.run(["bash", str(LAUNCH / "slurm.sbatch"), *arguments], text=True,
                          capture_output=True, env=kept | slurm | {"PATH": path})  # fmt: skip


def test_slurm_starts_one_torchrun_per_node_that_meet_on_the_first(tmp_path):
    done = started(tmp_path, 8, ["stage1.json"])
    assert done.returncode == 0, done.stderr
    command = done.stdout.split()
    assert command[-5:] == ["-m", "unite_core", "train", "stage1.json", "threads=4"]
    option = dict(zip(command, command[1:], strict=False))
    assert (option["--nnodes"], option["--nproc-per-node"]) == ("8", "8")
    assert option["--rdzv-endpoint"] == "node1:29500"
    assert option["--cpus-per-task"] == "96" and command.index("96") < command.index("torchrun")
    assert started(tmp_path, 8, []).returncode != 0, "a recipe must be named"


def test_the_shell_reads_the_whole_script_and_its_examples_exist():
    subprocess.run(["bash", "-n", str(LAUNCH / "slurm.sbatch")], check=True)
    text = "".join(file.read_text("utf-8") for file in LAUNCH.glob("*.[ys]*"))
    named = re.findall(r"unite_core/train/recipes/\S+\.(?:json|yaml|sbatch)", text)
    assert len(named) >= 5 and all((FOLDER.parents[2] / name).is_file() for name in named)


def test_accelerate_starts_the_processes_of_one_node(tmp_path):
    """A dry run: what `accelerate launch` makes of one_node.yaml, with the program replaced."""
    (tmp_path / "unite_core.py").write_text(
        "import json, os, sys\n"
        "env = {k: os.environ[k] for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')}\n"
        "open(f\"{env['RANK']}.json\", 'w').write(json.dumps([env, sys.argv[1:]]))\n",
        encoding="utf-8",
    )
    command = ["-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / "one_node.yaml"),
               "--num_processes=2", "--main_process_port=0", "-m", "unite_core", "train",
               "RECIPE.json"]  # fmt: skip
    settings = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | settings)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [each[1] for each in found] == [["train", "RECIPE.json"]] * 2
    assert [(each[0]["WORLD_SIZE"], each[0]["LOCAL_RANK"]) for each in found] == [
        ("2", "0"), ("2", "1")
    ]  # fmt: skip


def test_slurm_s_request_makes_the_global_batch_of_the_multi_node_recipes():
    text = (LAUNCH / "slurm.sbatch").read_text(encoding="utf-8")
    request = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", text, re.MULTILINE))
    assert request["ntasks-per-node"] == "1", "torchrun starts the others"
    processes = int(request["nodes"]) * int(request["gpus-per-node"])
    for name in ("multi_node_2b_stage1", "multi_node_7b_stage2"):
        assert recipe(name).stage.batch_size * processes == recipe(name).global_batch_size


def test_torchrun_understands_the_options(tmp_path):
    from torch.distributed.run import get_args_parser

    command = started(tmp_path, 2, ["stage1.json"]).stdout.split()
    given = get_args_parser().parse_args(command[command.index("torchrun") + 1 : -1])
    assert (given.nnodes, given.nproc_per_node, given.rdzv_id) == ("2", "8", "17")
    assert given.module and given.training_script == "unite_core"
    assert given.training_script_args == ["train", "stage1.json"]
