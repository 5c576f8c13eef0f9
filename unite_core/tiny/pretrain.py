"""Pretraining of unite-tiny in three phases: look, describe, summarize.

"look" is contrastive and trains the vision tower (`pretrain_vision`). The others are generative
(`examples`): read an item, write its text. Of the tower they train only the projector, since
training all of it made it worse at telling pictures of an unseen style apart.

"describe": the answer is written with the item in view. "summarize": under UNITE's prompt the
answer sees nothing but the pooled token, which thus has to hold what the answer needs. A large
Qwen2-VL knows what "Summary above image in one word:" means; this teaches it to the small one.

The manifest saved beside the weights names every media file and the hash of every text.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from ..data.items import files_of
from ..data.modality import modality_of
from ..files import read_json, write_json
from ..model.decoder import input_embeddings
from ..model.prompts import build_prompt
from ..settings import write_config
from .examples import (
    IGNORED,
    Example,
    GenerativeCollator,
    generative_examples,
    summary_examples,
)
from .model import EMBED_CONFIG, new_model, train_tokenizer
from .pretrain_vision import Concept, ConceptCollator, TowerContrast, concepts_of

__all__ = ["PHASES", "answer_loss", "batch_order", "pretrain_backbone"]


PHASES = ("look", "describe", "summarize")


def pretrain_backbone(records: Sequence[Mapping], root: str | Path, output: str | Path, phase: str,
             steps: int, batch_size: int = 64, learning_rate: float = 1e-3, seed: int = 0,
             save_steps: int = 200, start: str | Path | None = None) -> Path:  # fmt: skip
    """Train one phase of unite-tiny on `records`; resumes; returns the model's folder.

    Args
        phase   "look" makes a new model; "describe" and "summarize" continue from the folder
                `start` that the phase before returned
        output  folder of checkpoints and, once finished, of `model`
    Saves bfloat16 weights, tokenizer, `unite.json` and `pretraining.json` (settings and losses
    of each phase, and the media and texts that were read).
    """
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    if phase not in PHASES or (start is None) != (phase == PHASES[0]):
        raise ValueError(f"phase {phase!r} with start {start}: only {PHASES[0]} begins anew")
    output = Path(output)
    examples, earlier = generative_examples(records), []
    if start is None:
        tokenizer = train_tokenizer(_texts(examples), output / "tokenizer")
        model = new_model(tokenizer, seed)
    else:
        tokenizer = AutoTokenizer.from_pretrained(start)
        model = Qwen2VLForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
        earlier = read_json(Path(start) / "pretraining.json")["phases"]
    trained, data, collator = _parts(phase, model, tokenizer, records, examples, root, seed)
    arguments = TrainingArguments(
        output_dir=str(output / "checkpoints"), max_steps=steps, seed=seed,
        per_device_train_batch_size=batch_size, learning_rate=learning_rate,
        lr_scheduler_type="cosine", warmup_steps=steps // 30 + 1, weight_decay=0.01,
        adam_beta2=0.98, save_steps=save_steps, save_total_limit=1, logging_steps=20, report_to=[],
        remove_unused_columns=False, use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = _trainer_in_order(
        model=trained, args=arguments, data_collator=collator,
        train_dataset=batch_order(_sort_keys(data), steps, batch_size, seed),
    )  # fmt: skip
    (output / "checkpoints").mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(output / "checkpoints"))
    done = {
        "phase": phase, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "seed": seed, "examples": len(data),
        "loss": [[row["step"], row["loss"]] for row in trainer.state.log_history if "loss" in row],
    }  # fmt: skip
    return _save(model, tokenizer, output / "model", [*earlier, done], examples)


def _parts(phase: str, model, tokenizer, records, examples, root, seed: int) -> tuple:
    """The module that a phase trains, its data, and their collator."""
    if phase == "look":
        data = concepts_of(records)
        trained = TowerContrast(model.model.visual, len(tokenizer))
        return trained, data, ConceptCollator(data, root, tokenizer, seed)
    data = summary_examples(examples) if phase == "summarize" else examples
    for name, weight in model.model.visual.named_parameters():
        weight.requires_grad_(name.startswith("merger"))
    return model, data, GenerativeCollator(data, root, tokenizer, seed, phase)


def _sort_keys(data: Sequence[Example | Concept]) -> list[tuple[int, int]]:
    """Keys that members of a batch share: modality and answer length; the first words of concepts.

    "waving hand: dark skin tone" thus shares a batch with other tones, its hardest negatives.
    """
    return [
        (int(modality_of(entry.item)), len(entry.answer))
        if isinstance(entry, Example)
        else (zlib.crc32(entry.texts[0].split(":")[0].encode()), 0)
        for entry in data
    ]


def _trainer_in_order(**parts):
    """A transformers Trainer of these `parts` that keeps the order of its data set."""
    from torch.utils.data import SequentialSampler
    from transformers import Qwen2VLForConditionalGeneration, Trainer

    class _InOrder(Trainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if "labels" not in inputs:
                return super().compute_loss(model, inputs, return_outputs)
            return answer_loss(model, **inputs)

        def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
            if not isinstance(self.model, Qwen2VLForConditionalGeneration):
                return super()._load_from_checkpoint(resume_from_checkpoint, model)
            # Checkpoints have the released key layout, which only from_pretrained maps back.
            whole = Qwen2VLForConditionalGeneration.from_pretrained(
                resume_from_checkpoint, dtype=torch.float32
            )
            self.model.load_state_dict(whole.state_dict())

    return _InOrder(**parts)


def answer_loss(model, input_ids, labels, position_ids, attention_mask=None, **media):
    """Cross-entropy on answers, in nats per token; logits are computed for these only."""
    embeddings = input_embeddings(model.model, input_ids, **media)
    hidden = model.model.language_model(
        inputs_embeds=embeddings, position_ids=position_ids, use_cache=False,
        attention_mask=None if attention_mask is None else {"full_attention": attention_mask},
    ).last_hidden_state  # fmt: skip
    answered = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[:, :-1][answered])
    return F.cross_entropy(logits.float(), labels[:, 1:][answered])


def batch_order(keys: Sequence[tuple], steps: int, batch_size: int, seed: int) -> list[int]:
    """Example numbers in training order: shuffled epochs, batches of similar examples.

    Each stretch of 16 batches is sorted by `keys` (modality and answer length) and its batches are
    shuffled, so that batches need little padding.
    """
    generator = torch.Generator().manual_seed(seed)
    total, numbers = steps * batch_size, []
    while len(numbers) < total:
        numbers += torch.randperm(len(keys), generator=generator).tolist()
    order = []
    for start in range(0, total, 16 * batch_size):
        stretch = numbers[start : min(start + 16 * batch_size, total)]
        stretch = sorted(stretch, key=lambda number: keys[number])
        batches = [stretch[i : i + batch_size] for i in range(0, len(stretch), batch_size)]
        for index in torch.randperm(len(batches), generator=generator).tolist():
            order += batches[index]
    return order


def _texts(examples: Sequence[Example]) -> Iterable[str]:
    """Texts for the tokenizer: every example, under the embedding prompt."""
    for example in examples:
        yield build_prompt(example.item, "unite")
        yield example.answer


def _save(model, tokenizer, folder: Path, phases: list, examples: Sequence[Example]) -> Path:
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_config(EMBED_CONFIG, folder / "unite.json")
    media = {path for example in examples for path in files_of(example.item)}
    manifest = {
        "phases": phases,
        "media": sorted(media),
        "texts": sorted({hashlib.sha256(e.answer.encode()).hexdigest()[:16] for e in examples}),
    }
    write_json(folder / "pretraining.json", manifest)
    return folder
