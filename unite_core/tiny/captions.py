"""Texts that the backbone writes about items, before any retrieval training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["write_texts"]


def write_texts(model, processor, items: Sequence[Mapping], root, tokens: int = 24) -> list[str]:
    """Write a text about each item with a generative Qwen2-VL: greedy, at most `tokens` tokens.

    Args
        model      Qwen2VLForConditionalGeneration with sequential positions, as unite-tiny's
        processor  its Processor with the "raw" prompt, which ends where the answer begins
        root       folder of the items' media
    """
    import torch

    encoded = [processor.encode(item, root, f"item {row}") for row, item in enumerate(items)]
    batch = processor.collate([item._replace(input_ids=item.input_ids[:-1]) for item in encoded])
    start = batch["input_ids"].shape[1]
    with torch.inference_mode():
        for _ in range(tokens):
            positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
            logits = model(**batch, position_ids=positions.expand(3, -1, -1)).logits[:, -1]
            chosen = logits.argmax(1, keepdim=True)
            batch["input_ids"] = torch.cat([batch["input_ids"], chosen], 1)
            mask = batch["attention_mask"]
            batch["attention_mask"] = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
    texts = processor.tokenizer.batch_decode(batch["input_ids"][:, start:])
    return [text.split("<|im_end|>")[0] for text in texts]
