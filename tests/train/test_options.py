"""What a run hands on to transformers and peft arrives there, and what is ours is refused."""

# ruff: noqa: F811 - a fixture of another module is an argument
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.train.test_claim import config_of, corpus, stopped  # noqa: F401 - corpus is a fixture
from unite_core.files import read_json
from unite_core.model.backbones import BACKBONES
from unite_core.model.embedder import UniteEmbedder
from unite_core.train.arguments import FREE_ARGUMENTS, OWN_ARGUMENTS, OWN_LORA
from unite_core.train.claim import check_run
from unite_core.train.config import StageConfig, TrainConfig
from unite_core.train.parts import part_weights
from unite_core.train.run import train
from unite_core.train.setup import adapted_model, training_arguments
from unite_core.train.trainer import UniteTrainer


def trained_names(embedder) -> set[str]:
    return {name for name, weight in embedder.named_parameters() if weight.requires_grad}


def weights(output) -> dict[str, torch.Tensor]:
    return load_file(Path(output, "model", "model.safetensors"))


def losses(output) -> list[float]:
    return [row["loss"] for row in read_json(Path(output, "history.json")) if "loss" in row]


def test_the_tables_name_fields_that_exist_and_do_not_contradict():
    from peft import LoraConfig
    from transformers import TrainingArguments

    known = set(TrainingArguments.__dataclass_fields__)
    assert set(OWN_ARGUMENTS) | set(FREE_ARGUMENTS) <= known
    assert not set(OWN_ARGUMENTS) & set(FREE_ARGUMENTS)
    assert set(OWN_LORA) <= set(LoraConfig.__dataclass_fields__)
    ours = set(TrainConfig.__dataclass_fields__) | set(StageConfig.__dataclass_fields__)
    assert not set(FREE_ARGUMENTS) & ours, "a field of ours would become free with it"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 1e-3}, r"trainer.learning_rate cannot be set here: set stage.learning"),
        ({"per_device_train_batch_size": 8}, "set stage.batch_size"),
        ({"gradient_accumulation_steps": 2}, "set grad_cache"),
        ({"seed": 1}, "set stage.seed"),
        ({"output_dir": "x"}, "set output"),
        ({"eval_steps": 5}, "set eval_data, eval_steps"),
        ({"hub_token": "hf_x"}, "hf auth login"),
        ({"adam_beta": 0.9}, r"trainer.adam_beta is no field .did you mean adam_beta"),
    ],
)
def test_what_is_ours_is_refused_with_the_field_to_use(corpus, values, message):
    with pytest.raises(ValueError, match=message):
        config_of(corpus, trainer=values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 4}, "lora.r cannot be set here: set stage.lora_rank"),
        ({"modules_to_save": ["norm"]}, "set stage.train_vision"),
        ({"use_dorra": True}, "did you mean use_dora"),
        ({"init_lora_weights": "eva"}, "pissa_niter_16; others need a pass over data"),
    ],
)
def test_what_a_stage_says_of_its_lora_is_refused_in_peft_s_words(values, message):
    with pytest.raises(ValueError, match=message):
        StageConfig("x", lora=values)


@pytest.mark.parametrize("field", ["shard_frozen", "quantize"])
def test_full_fine_tuning_leaves_nothing_to_shard_or_to_quantize(corpus, field):
    value = {"shard_frozen": True, "quantize": "4bit"}[field]
    with pytest.raises(ValueError, match=f"{field} needs frozen weights"):
        config_of(corpus, lora=None, **{field: value})
    with pytest.raises(ValueError, match=f"{field} needs the weights as they are: pissa"):
        config_of(corpus, lora={"init_lora_weights": "pissa"}, **{field: value})


def test_four_bits_without_their_package_are_refused_by_its_name(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match="bitsandbytes"):
        train(config_of(corpus, quantize="4bit"))
    assert not list((corpus / "out").glob("*")), "a failed start claims nothing"


def test_values_reach_the_optimizer_and_the_schedule(corpus):
    values = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.5}
    trainer = UniteTrainer.from_config(config_of(corpus, trainer=values))
    assert type(trainer.create_optimizer()) is torch.optim.SGD
    betas = {"adam_beta1": 0.5, "adam_epsilon": 1e-3}
    (group, *_) = (
        UniteTrainer.from_config(config_of(corpus, trainer=betas)).create_optimizer().param_groups
    )
    assert group["betas"] == (0.5, 0.999) and group["eps"] == 1e-3
    train(config_of(corpus, trainer=values, logging_steps=1))
    rows = [row for row in read_json(corpus / "out" / "history.json") if "loss" in row]
    assert {row["learning_rate"] for row in rows[1:]} == {5e-3}


def test_without_such_fields_the_arguments_are_those_of_before(corpus):
    arguments = training_arguments(config_of(corpus), 4)
    assert (arguments.lr_scheduler_type, arguments.optim) == ("cosine", "adamw_torch_fused")
    assert (arguments.max_grad_norm, arguments.adam_beta2, arguments.report_to) == (1, 0.999, [])


def test_a_value_that_transformers_refuses_is_an_error_of_the_field(corpus):
    with pytest.raises(ValueError, match=r"^trainer \{.*cosin.*not a valid SchedulerType"):
        train(config_of(corpus, trainer={"lr_scheduler_type": "cosin"}))


def test_logs_reach_a_logger_and_tensorboard_once(corpus, monkeypatch):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    seen = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            seen.append(dict(logs))

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "trackio", Logger)
    config = config_of(corpus, trainer={"report_to": ["trackio", "tensorboard"]})
    train(config)
    assert [row["loss"] for row in seen if "loss" in row] == losses(config.output)
    assert len(list(Path(config.output, "tensorboard").iterdir())) == 1
    assert not Path(config.output, "runs").exists()


def test_the_finished_model_is_pushed_and_nothing_else(corpus, monkeypatch):
    from huggingface_hub import HfApi, RepoUrl

    made, pushed = [], []
    url = RepoUrl("https://huggingface.co/me/out")
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **_: made.append(name) or url)
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **given: pushed.append(given))
    config = config_of(corpus, trainer={"push_to_hub": True, "hub_revision": "dev"})
    model = train(config)
    assert made == ["out"]
    assert pushed == [{"repo_id": "me/out", "folder_path": model, "revision": "dev"}]

    def fail(self, **given):
        raise ConnectionError("no network")

    monkeypatch.setattr(HfApi, "upload_folder", fail)
    again = config_of(corpus, output=str(corpus / "again"), trainer={"push_to_hub": True})
    with pytest.warns(UserWarning, match="finished and was not pushed .no network.: hf upload"):
        assert train(again).is_dir()


def test_loggers_may_change_when_a_run_goes_on_and_the_objective_may_not(corpus, monkeypatch):
    stopped(corpus, monkeypatch, trainer={"adam_beta2": 0.9})
    free = {"run_name": "again", "logging_first_step": False}
    check_run(config_of(corpus, trainer={"adam_beta2": 0.9, **free}))
    with pytest.raises(ValueError, match=r"trainer.adam_beta2 was 0.9, now 0.95"):
        check_run(config_of(corpus, trainer={"adam_beta2": 0.95}))
    with pytest.raises(ValueError, match="lora.use_dora was None, now True"):
        check_run(config_of(corpus, trainer={"adam_beta2": 0.9}, lora={"use_dora": True}))


def test_fields_reach_peft(corpus):
    values = {
        "use_rslora": True, "use_dora": True, "rank_pattern": {"q_proj": 2},
        "exclude_modules": ["o_proj"],
    }  # fmt: skip
    embedder = adapted_model(config_of(corpus, lora_rank=4, lora=values), "cpu")
    layers = {n: m for n, m in embedder.base.named_modules() if hasattr(m, "lora_A")}
    assert layers and not any(name.endswith("o_proj") for name in layers)
    for name, layer in layers.items():
        rank = 2 if name.endswith("q_proj") else 4
        assert len(layer.lora_A["default"].weight) == rank
        assert layer.scaling["default"] == 16 / math.sqrt(rank)  # rsLoRA
        assert "default" in layer.lora_magnitude_vector  # DoRA


@pytest.mark.parametrize("start", ["pissa", "olora", "orthogonal", "gaussian"])
def test_a_start_of_peft_leaves_the_vectors_and_is_seeded(corpus, start):
    config = config_of(corpus, lora={"init_lora_weights": start})
    first, second = (adapted_model(config, "cpu") for _ in range(2))
    for name, weight in first.named_parameters():
        assert torch.equal(weight, second.get_parameter(name)), name
    items = [{"text": "a red sheet"}]
    before = UniteEmbedder.load(config.model, "cpu").embed(items, progress=False)
    assert abs(before - first.embed(items, progress=False)).max() < 1e-4


PARTS = [
    ({"lora": None}, {"language"}, set()),
    ({"train_vision": True}, {"vision", "projector"}, {"language"}),
    ({"train_vision": "lora"}, set(), {"language", "vision", "projector"}),
    ({"train_projector": "trained"}, {"projector"}, {"language"}),
    ({"train_vision": "lora", "train_projector": "frozen"}, set(), {"language", "vision"}),
    ({"train_vision": "lora", "train_projector": "trained", "lora": None},
     {"language", "projector"}, {"vision"}),
    ({"train_vision": "lora", "lora": {"target_modules": ["q_proj"]}}, set(),
     {"language", "vision", "projector"}),
]  # fmt: skip


def part_of(name: str) -> str:
    if ".visual." not in name:
        return "language"
    return "projector" if ".merger." in name else "vision"


@pytest.mark.parametrize(("fields", "whole", "adapted"), PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_part_is_frozen_adapted_or_trained(corpus, fields, whole, adapted, dtype):
    embedder = adapted_model(config_of(corpus, bf16=dtype != torch.float32, **fields), "cpu", dtype)
    names = trained_names(embedder)
    assert {part_of(name) for name in names if "lora_" not in name} == whole
    assert {part_of(name) for name in names if "lora_" in name} == adapted
    for name, weight in embedder.named_parameters():
        if part_of(name) in whole and "lora_" not in name:
            assert weight.requires_grad, name
        assert weight.dtype == (torch.float32 if weight.requires_grad else dtype), name
    if (fields.get("lora") or {}).get("target_modules"):
        language = {name for name in names if part_of(name) == "language"}
        assert language and all("q_proj" in name for name in language)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_tower_and_projector_are_told_apart_in_every_family(name):
    family = BACKBONES[name]
    config = getattr(transformers, family.config)()
    config.text_config.num_hidden_layers = 1
    with torch.device("meta"):
        model = getattr(transformers, family.model)(config)
    names = {weight: n for n, weight in model.named_parameters()}
    parts = {
        part: {names[weight] for weight in part_weights(SimpleNamespace(base=model), part)}
        for part in ("language", "vision", "projector")
    }
    assert sum(map(len, parts.values())) == len(names), "each weight is of one part"
    assert parts["projector"] == {n for n in names.values() if "merger" in n} != set()
    assert {n.split(".")[0] for n in parts["vision"]} == {"visual"}
    assert {n.split(".")[0] for n in parts["language"]} == {"language_model"}


def test_parts_have_learning_rates_of_their_own(corpus):
    fields = {"train_vision": "lora", "train_projector": True, "learning_rate": 1e-3}
    rates = {"vision_learning_rate": 1e-4, "projector_learning_rate": 1e-5}
    trainer = UniteTrainer.from_config(config_of(corpus, **fields, **rates))
    names = {weight: name for name, weight in trainer.model.named_parameters()}
    wanted = {"language": 1e-3, "vision": 1e-4, "projector": 1e-5}
    found = {
        names[weight]: group["lr"]
        for group in trainer.create_optimizer().param_groups
        for weight in group["params"]
    }
    assert found == {
        name: wanted[part_of(name)] for weight, name in names.items() if weight.requires_grad
    }
    with pytest.raises(ValueError, match="projector_learning_rate is 1e-05: must be null"):
        config_of(corpus, projector_learning_rate=1e-5)


def test_a_lora_that_reaches_the_tower_forbids_cached_visual_tokens(corpus):
    lora = {"target_modules": "all-linear"}
    with pytest.raises(ValueError, match="cache_vision needs a frozen tower: set it to false"):
        adapted_model(config_of(corpus, lora=lora, cache_vision=True), "cpu")
    with pytest.raises(ValueError, match="train_projector must be frozen"):
        config_of(corpus, train_projector="lora", cache_vision=True)


LORA_ALONE = ("dora", "pissa", "four bits", "learned temperature")
RUNS = {
    "dora": {"lora": {"use_dora": True, "use_rslora": True}},
    "full": {"lora": None, "learning_rate": 1e-3, "trainer": {"lr_scheduler_type": "linear"}},
    "vision lora": {"train_vision": "lora", "train_projector": "trained",
                    "projector_learning_rate": 1e-3},
    "pissa": {"lora": {"init_lora_weights": "pissa"}},
    "four bits": {"quantize": "4bit"},
    "learned temperature": {"learn_temperature": True, "temperature": 0.05},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_forty_steps_lower_the_loss_and_a_killed_run_ends_with_the_same_bits(
    corpus, monkeypatch, name
):
    if name == "four bits":
        pytest.importorskip("bitsandbytes")  # which computes on CPUs, too; not part of .[all]
    fields = {"max_steps": 40, "save_steps": 2, "batch_size": 6, "logging_steps": 10, **RUNS[name]}
    whole = config_of(corpus, output=str(corpus / "whole"), **fields)
    train(whole)
    found = losses(whole.output)
    assert found[-1] < 0.7 * found[0]
    train(stopped(corpus, monkeypatch, **fields))
    first, second = weights(whole.output), weights(corpus / "out")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    before, after = (
        UniteEmbedder.load(folder, "cpu").backbone.state_dict()
        for folder in (corpus / "start", Path(whole.output) / "model")
    )
    moved = {key for key in before if (before[key] - after[key]).abs().max() > 1e-5}
    for part, runs in {"embed_tokens": ["full"], "visual.blocks": ["vision lora"],
                       "visual.merger": ["vision lora"], "visual.patch_embed": [],
                       "language_model.layers": list(RUNS)}.items():  # fmt: skip
        assert any(part in key for key in moved) is (name in runs), part
    assert (Path(whole.output) / "adapter").is_dir() is (name in LORA_ALONE)
    if name in LORA_ALONE:
        embedder = UniteEmbedder.load(corpus / "start", "cpu")
        embedder.load_lora(Path(whole.output) / "adapter")
        merged = UniteEmbedder.load(Path(whole.output) / "model", "cpu")
        items = [{"text": "red"}, {"image": "red.bmp"}]
        vectors = [m.embed(items, corpus, progress=False) for m in (embedder, merged)]
        assert abs(vectors[0] - vectors[1]).max() < 1e-4
