"""Training on packed items is training on padded ones."""

from dataclasses import replace

import pytest

from tests.train.test_resume import CHECKPOINT, config_of, corpus  # noqa: F401 - a fixture
from unite_core.model.packing import is_packed
from unite_core.train.trainer import UniteTrainer


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_packed_training_has_the_losses_of_padded_training(corpus, tmp_path, name):  # noqa: F811
    losses = {}
    for attention in (None, "packed"):
        config = config_of(corpus, tmp_path / str(attention), name)
        stage = replace(config.stage, lora_dropout=0.0, max_steps=3)
        more = {} if attention is None else {"forward_tokens": 150, "forward_items": 64}
        config = replace(config, model=str(CHECKPOINT), stage=stage, attention=attention, **more)
        config = replace(config, logging_steps=1)
        trainer = UniteTrainer.from_config(config)
        assert is_packed(trainer.model.embedder.base.language_model) == bool(attention)
        assert trainer.data_collator.packed == bool(attention)
        trainer.train()
        losses[attention] = [r["loss"] for r in trainer.state.log_history if "loss" in r]
    assert len(losses[None]) == 3 and losses[None][0] != losses[None][-1]
    assert losses["packed"] == pytest.approx(losses[None], rel=1e-4)
