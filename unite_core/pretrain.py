"""Generative pretraining of unite-tiny: read an item, write its text; in two phases.

Any record with a text on one side is an example: the other side is the user's turn, the text is
the assistant's. So what the backbone saw is exactly a list of training records, and the manifest
saved beside the weights names every medium and the hash of every text.

"describe": as usual, the answer is written with the item in view. "summarize": UNITE's prompt, and
the answer sees nothing but the pooled token, so that this token has to hold what the answer needs.
A large Qwen2-VL knows what "Summary above image in one word:" means; this teaches the small one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from .config import write_config
from .jsonfile import read_json, write_json
from .media import load_image, load_video
from .modality import Modality, modality_of
from .pixels import Layout, patchify
from .prompts import build_prompt, files_of, images_of, videos_of
from .tiny import EMBED_CONFIG, new_model, train_tokenizer

__all__ = [
    "Example", "GenerativeCollator", "augment", "batches_of_a_kind", "generative_examples",
    "pretrain", "summary_examples", "summary_mask",
]  # fmt: skip

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


def augment(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, scale and shift each medium a little, and change its brightness.

    frames [B, C, H, W] in [0, 1], one medium per row (the frames of a clip stacked in C, so that
    they move together); what comes in from outside is white. Returns the same shape.
    """
    count = len(frames)
    low = torch.tensor([-0.2, 0.85, -0.1, -0.1, 0.85])
    high = torch.tensor([0.2, 1.25, 0.1, 0.1, 1.1])
    draws = low + (high - low) * torch.rand(count, 5, generator=generator)
    angle, scale, right, down, gain = draws.T
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, -sin, right, sin, cos, down], 1).reshape(count, 2, 3)
    grid = F.affine_grid(rows, list(frames.shape), align_corners=False)
    moved = 1 - F.grid_sample(1 - frames, grid, align_corners=False)  # outside: 1 - 0 = white
    return (moved * gain[:, None, None, None]).clamp(0, 1)


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
        generator = torch.Generator().manual_seed(hash((self.seed, *samples)))
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


def pretrain(records: Sequence[Mapping], root: str | Path, output: str | Path, steps: int,
             batch_size: int = 64, learning_rate: float = 1e-3, seed: int = 0,
             bf16: bool = False, save_steps: int = 200,
             start: str | Path | None = None) -> Path:  # fmt: skip
    """Train unite-tiny to write the texts of `records`; resumes; returns its folder.

    Without `start` a new model goes through the phase "describe"; with the folder that this gave,
    it goes on with the phase "summarize".

    Saves bfloat16 weights, tokenizer, `unite.json` and `pretraining.json` (the settings and losses
    of each phase, and every medium and text that were read).
    """
    from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    output = Path(output)
    examples = generative_examples(records)
    if start is None:
        phase, tokenizer = "describe", train_tokenizer(_texts(examples), output / "tokenizer")
        model, earlier = new_model(tokenizer, seed), []
    else:
        phase, tokenizer = "summarize", AutoTokenizer.from_pretrained(start)
        model = Qwen2VLForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
        earlier = read_json(Path(start) / "pretraining.json")["phases"]
        examples = summary_examples(examples)
    collator = GenerativeCollator(examples, root, tokenizer, seed, phase)
    arguments = TrainingArguments(
        output_dir=str(output / "checkpoints"), max_steps=steps, seed=seed, bf16=bf16,
        per_device_train_batch_size=batch_size, learning_rate=learning_rate,
        lr_scheduler_type="cosine", warmup_steps=steps // 30 + 1, weight_decay=0.01,
        adam_beta2=0.98, save_steps=save_steps, save_total_limit=1, logging_steps=20, report_to=[],
        remove_unused_columns=False, use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = _trainer_in_order(
        model=model, args=arguments, data_collator=collator,
        train_dataset=batches_of_a_kind(examples, steps, batch_size, seed),
    )  # fmt: skip
    (output / "checkpoints").mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(output / "checkpoints"))
    done = {
        "phase": phase, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
        "seed": seed, "bf16": bf16, "examples": len(examples),
        "loss": [[row["step"], row["loss"]] for row in trainer.state.log_history if "loss" in row],
    }  # fmt: skip
    return _save(trainer, tokenizer, output / "model", [*earlier, done], examples)


def _trainer_in_order(**parts):
    """transformers' Trainer of these `parts` that keeps the order of its data set."""
    from torch.utils.data import SequentialSampler
    from transformers import Qwen2VLForConditionalGeneration, Trainer

    class _InOrder(Trainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(self.train_dataset)

        def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
            # Checkpoints have the released key layout, which only from_pretrained maps back.
            whole = Qwen2VLForConditionalGeneration.from_pretrained(
                resume_from_checkpoint, dtype=torch.float32
            )
            self.model.load_state_dict(whole.state_dict())

    return _InOrder(**parts)


def batches_of_a_kind(
    examples: Sequence[Example], steps: int, batch_size: int, seed: int
) -> list[int]:
    """Example numbers in training order: epochs in random order, batches of about one length.

    Within each stretch of 16 batches examples are sorted by modality and answer length, and the
    batches shuffled, so that little of a batch is padding.
    """
    generator = torch.Generator().manual_seed(seed)
    total, numbers = steps * batch_size, []
    while len(numbers) < total:
        numbers += torch.randperm(len(examples), generator=generator).tolist()

    def length(number: int) -> tuple[int, int]:
        example = examples[number]
        return int(modality_of(example.item)), len(example.answer)

    order = []
    for start in range(0, total, 16 * batch_size):
        stretch = sorted(numbers[start : min(start + 16 * batch_size, total)], key=length)
        batches = [stretch[i : i + batch_size] for i in range(0, len(stretch), batch_size)]
        for index in torch.randperm(len(batches), generator=generator).tolist():
            order += batches[index]
    return order


def _texts(examples: Sequence[Example]) -> Iterable[str]:
    """What the tokenizer learns from: every example, and the embedding prompts often enough."""
    for example in examples:
        yield build_prompt(example.item, "unite")
        yield example.answer


def _save(trainer, tokenizer, folder: Path, phases: list, examples: Sequence[Example]) -> Path:
    trainer.model.to(torch.bfloat16).save_pretrained(folder)
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
