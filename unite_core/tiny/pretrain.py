"""Pretraining of unite-tiny in three phases: look, describe, summarize.

"look" is contrastive and teaches the vision tower (`pretrain_vision`). The others are generative:
read an item, write its text. There of the tower only its projector is trained: writing made it
worse at telling pictures of an unseen style apart (LOG).

Any record with a text on one side is an example: the other side is the user's turn, the text is
the assistant's. So what the backbone saw is exactly a list of training records, and the manifest
saved beside the weights names every medium and the hash of every text.

"describe": as usual, the answer is written with the item in view. "summarize": UNITE's prompt, and
the answer sees nothing but the pooled token, so that this token has to hold what the answer needs.
A large Qwen2-VL knows what "Summary above image in one word:" means; this teaches the small one.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ..data.items import files_of, images_of, videos_of
from ..data.media import load_image
from ..data.modality import Modality, modality_of
from ..data.videos import load_video
from ..files import read_json, write_json
from ..model.decoder import input_embeddings
from ..model.preprocessing import Layout, patchify
from ..model.prompts import build_prompt
from ..settings import write_config
from .model import EMBED_CONFIG, new_model, train_tokenizer
from .pretrain_vision import Concept, LookCollator, TowerContrast, augment, concepts_of, seeded

__all__ = [
    "Example",
    "GenerativeCollator",
    "PHASES",
    "answer_loss",
    "batches_of_a_kind",
    "generative_examples",
    "pretrain_backbone",
    "summary_examples",
    "summary_mask",
]


PHASES = ("look", "describe", "summarize")
IGNORED = -100  # the label that transformers' losses skip


@dataclass(frozen=True)
class Example:
    """A user's turn and the assistant's answer."""

    item: dict
    answer: str


def generative_examples(records: Iterable[Mapping]) -> list[Example]:
    """Every record read towards its text; of two texts, the query asks and the candidate answers.

    Records without a text-only side are left out. Equal examples are kept once, in order.
    """
    examples = {}
    for record in records:
        query, candidate = record["query"], record["candidate"]
        if modality_of(candidate) == Modality.TEXT:
            example = Example(dict(query), candidate["text"])
        elif modality_of(query) == Modality.TEXT and modality_of(candidate) != Modality.TEXT:
            example = Example(dict(candidate), query["text"])
        else:
            continue
        examples[repr(example)] = example
    return list(examples.values())


def summary_examples(examples: Sequence[Example]) -> list[Example]:
    """Examples without questions, and every answer once more as the text that it sums up."""
    plain = [e for e in examples if Modality.TEXT not in modality_of(e.item) or len(e.item) == 1]
    answers = dict.fromkeys(e.answer for e in plain)
    return plain + [Example({"text": answer}, answer) for answer in answers]


class GenerativeCollator:
    """Example numbers -> a padded batch with labels on the answers only.

    Draws of augmentation depend on the seed and the batch's examples alone, so a resumed run sees
    the same pictures.
    """

    def __init__(self, examples: Sequence[Example], root: str | Path, tokenizer, seed: int,
                 phase: str = "describe"):  # fmt: skip
        self.examples, self.root, self.tokenizer, self.seed = examples, root, tokenizer, seed
        self.summarize = phase == "summarize"
        self.layout = Layout()
        self.decoded: dict[str, np.ndarray] = {}  # small media: decoded once

    def __call__(self, samples: Sequence[int]) -> dict[str, torch.Tensor]:
        generator = seeded(self.seed, *samples)
        examples = [self.examples[sample] for sample in samples]
        batch: dict[str, torch.Tensor] = {}
        counts: dict[int, int] = {}
        for kind, read in (("image", images_of), ("video", videos_of)):
            found = [(row, read(e.item)[0]) for row, e in enumerate(examples) if read(e.item)]
            if found:
                media = torch.from_numpy(np.stack([self._frames(kind, path) for _, path in found]))
                patches, grids = self._patches(media, generator)
                suffix = "" if kind == "image" else "_videos"
                batch |= {f"pixel_values{suffix}": patches, f"{kind}_grid_thw": grids}
                tokens = int(grids[0].prod()) // self.layout.merge**2
                counts |= {row: tokens for row, _ in found}
        return batch | self._text(examples, counts)

    def _frames(self, kind: str, source: str | list[str]) -> np.ndarray:
        """[T, 3, H, W] uint8."""
        c, key = EMBED_CONFIG, repr(source)
        if key not in self.decoded:
            frames = (
                [load_image(source, self.root)]
                if kind == "image"
                else load_video(source, self.root, c.fps, c.min_frames, c.max_frames)
            )
            pixels = np.stack([np.asarray(frame) for frame in frames])
            self.decoded[key] = pixels.transpose(0, 3, 1, 2)
        return self.decoded[key]

    def _patches(self, media: torch.Tensor, generator: torch.Generator):
        """[B, T, 3, H, W] uint8 -> augmented patches of all media, and their grids."""
        moved = augment(media.flatten(1, 2).float() / 255, generator).unflatten(1, (-1, 3))
        mean, std = (
            torch.tensor(values)[:, None, None] for values in (self.layout.mean, self.layout.std)
        )
        patched = [patchify(frames, self.layout) for frames in (moved - mean) / std]
        patches, grids = zip(*patched, strict=True)
        return torch.cat(patches), torch.tensor(grids)

    def _text(self, examples: Sequence[Example], counts: Mapping[int, int]):
        ids, labels, starts = [], [], []
        for row, example in enumerate(examples):
            prompt = build_prompt(example.item, "unite" if self.summarize else "raw")
            ending = "" if self.summarize else "<|endoftext|>"
            prompt = prompt.removesuffix(ending)
            for pad in ("<|image_pad|>", "<|video_pad|>"):
                prompt = prompt.replace(pad, pad * counts.get(row, 0))
            asked = self.tokenizer(prompt)["input_ids"]
            said = self.tokenizer(f"{example.answer}<|im_end|>\n{ending}")["input_ids"]
            ids.append(torch.tensor(asked + said))
            labels.append(torch.tensor([IGNORED] * len(asked) + said))
            starts.append(len(asked))
        pad = torch.nn.utils.rnn.pad_sequence
        input_ids = pad(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        positions = torch.arange(input_ids.shape[1])[None, None]  # sequential, as UNITE's
        batch = {
            "input_ids": input_ids,
            "labels": pad(labels, batch_first=True, padding_value=IGNORED),
            "position_ids": positions.expand(3, *input_ids.shape),
        }
        if self.summarize:
            batch["attention_mask"] = summary_mask(torch.tensor(starts), input_ids.shape[1])
        return batch


def summary_mask(starts: torch.Tensor, width: int) -> torch.Tensor:
    """Who may look at whom, [B, 1, T, T] booleans: causal, and answers see no item.

    `starts` [B] is where each answer begins; the token before it is the pooled one.
    """
    steps = torch.arange(width)
    causal = steps[:, None] >= steps
    starts = starts[:, None, None]
    hidden = (steps[:, None] >= starts) & (steps < starts - 1)  # [B, T, T]
    return (causal & ~hidden)[:, None]


def pretrain_backbone(records: Sequence[Mapping], root: str | Path, output: str | Path, phase: str,
             steps: int, batch_size: int = 64, learning_rate: float = 1e-3, seed: int = 0,
             save_steps: int = 200, start: str | Path | None = None) -> Path:  # fmt: skip
    """One phase of training unite-tiny on `records`; resumes; returns the model's folder.

    Args
        phase   "look" makes a new model; "describe" and "summarize" go on from the folder `start`
                that the phase before gave
        output  folder of checkpoints and, once finished, of `model`
    Saves bfloat16 weights, tokenizer, `unite.json` and `pretraining.json` (the settings and losses
    of each phase, and every medium and text that were read).
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
        train_dataset=batches_of_a_kind(_sort_keys(data), steps, batch_size, seed),
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
    """What a phase trains, the examples that it reads, and how they become a batch."""
    if phase == "look":
        data = concepts_of(records)
        trained = TowerContrast(model.model.visual, len(tokenizer))
        return trained, data, LookCollator(data, root, tokenizer, seed)
    data = summary_examples(examples) if phase == "summarize" else examples
    for name, weight in model.model.visual.named_parameters():
        weight.requires_grad_(name.startswith("merger"))
    return model, data, GenerativeCollator(data, root, tokenizer, seed, phase)


def _sort_keys(data: Sequence[Example | Concept]) -> list[tuple[int, int]]:
    """What the members of a batch share: modality and answer length; of concepts, the beginning.

    "waving hand: dark skin tone" so meets the other tones, its hardest negatives, in a batch.
    """
    return [
        (int(modality_of(one.item)), len(one.answer))
        if isinstance(one, Example)
        else (zlib.crc32(one.texts[0].split(":")[0].encode()), 0)
        for one in data
    ]


def _trainer_in_order(**parts):
    """transformers' Trainer of these `parts` that keeps the order of its data set."""
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
    """The language model's loss on answers, in nats per token; only these get logits."""
    embeddings = input_embeddings(model.model, input_ids, **media)
    hidden = model.model.language_model(
        inputs_embeds=embeddings, position_ids=position_ids, use_cache=False,
        attention_mask=None if attention_mask is None else {"full_attention": attention_mask},
    ).last_hidden_state  # fmt: skip
    said = labels[:, 1:] != IGNORED
    logits = model.lm_head(hidden[:, :-1][said])
    return F.cross_entropy(logits.float(), labels[:, 1:][said])


def batches_of_a_kind(keys: Sequence[tuple], steps: int, batch_size: int, seed: int) -> list[int]:
    """Example numbers in training order: epochs in random order, batches of about one length.

    Within each stretch of 16 batches examples are sorted by their `keys` (modality and length of
    the answer), and the batches shuffled, so that little of a batch is padding.
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
    """What the tokenizer learns from: every example, and the embedding prompts often enough."""
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
