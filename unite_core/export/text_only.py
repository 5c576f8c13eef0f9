"""Export the text side alone, for sentence-transformers without any code of ours.

Text has the same positions under sequential and M-RoPE, so for text the language model of Qwen2-VL
or Qwen2.5-VL is a plain Qwen2, and the prompt is a chat template: standard classes suffice, and
servers of text embeddings can run it. Its queries can search an index made by the whole model.
"""

from __future__ import annotations

from pathlib import Path

from ..files import read_json, write_json
from ..model.backbones import TEMPLATES, backbone_of
from ..model.embedder import UniteEmbedder
from ..model.prompts import build_prompt

__all__ = ["write_text_files"]


_TEXT = "\0"  # stands for the text; occurs in no prompt
_KINDS = {
    "": "sentence_transformers.base.modules.transformer.Transformer",
    "1_Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "2_Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}


def write_text_files(embedder: UniteEmbedder, folder: Path) -> dict[str, str]:
    """Write weights, tokenizer with the prompt as chat template, and module settings.

    Args
        embedder  without LoRA; its language model is written as a Qwen2Model
        folder    is created
    Returns {path in the folder: class} of sentence-transformers' modules, in order.
    Raises ValueError for a language model that is no Qwen2 (Qwen3-VL).
    """
    family = backbone_of(embedder.base)
    if family is None or not family.plain_text:
        kind = embedder.base.config.text_config.model_type
        raise ValueError(
            f"{kind} is no Qwen2: its text side cannot be exported alone; export the whole model"
        )
    _qwen2(embedder).save_pretrained(folder)
    _save_tokenizer(embedder, folder)
    forward = {"method": "forward", "method_output_name": "last_hidden_state"}
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": forward, "message": forward | {"format": "flat"}},
        "module_output_name": "token_embeddings",
    }
    write_json(folder / "sentence_bert_config.json", settings, indent=2)
    pooling = {"embedding_dimension": embedder.dim, "pooling_mode": "lasttoken"}
    write_json(folder / "1_Pooling" / "config.json", pooling, indent=2)
    write_json(folder / "2_Normalize" / "config.json", {}, indent=2)
    return _KINDS


def _qwen2(embedder: UniteEmbedder):
    """Copy the language model into transformers' Qwen2Model."""
    from transformers import Qwen2Config, Qwen2Model

    config = embedder.base.config.text_config
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
        "hidden_act", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    values = {name: getattr(config, name) for name in same}
    rope = {k: v for k, v in config.rope_parameters.items() if not k.startswith("mrope")}
    if rope["rope_type"] != "default":
        raise ValueError(f"rope_type {rope['rope_type']!r} is not exported; only default is")
    model = Qwen2Model(Qwen2Config(**values, rope_parameters=rope))
    if (
        model.layers[0].self_attn.head_dim
        != embedder.base.language_model.layers[0].self_attn.head_dim
    ):
        raise ValueError("heads are not hidden_size / num_attention_heads wide, as a Qwen2's are")
    model.load_state_dict(embedder.base.language_model.state_dict())
    return model.to(next(embedder.parameters()).dtype).eval()


def _save_tokenizer(embedder: UniteEmbedder, folder: Path) -> None:
    """Write the tokenizer with the prompt as template, loadable without an image processor."""
    tokenizer = embedder.processor.tokenizer
    kept = tokenizer.chat_template, tokenizer.truncation_side, tokenizer.model_max_length
    try:
        tokenizer.chat_template = _template(embedder.config.prompt)
        tokenizer.truncation_side = "right"  # of the text, as UniteEmbedder cuts it
        tokenizer.model_max_length = embedder.config.max_length
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template, tokenizer.truncation_side, tokenizer.model_max_length = kept
    path = folder / "tokenizer_config.json"
    settings = read_json(path)
    settings.pop("processor_class", None)  # of the whole model
    write_json(path, settings, indent=2)


def _template(prompt: str) -> str:
    """The prompt in Jinja; an instruction (a system message) has its place or precedes the text."""
    template = TEMPLATES[prompt]
    head, tail = build_prompt({"text": _TEXT}, prompt).split(_TEXT)
    told, chosen = "", "messages"
    if "{instruction}" in template.turn:
        head, middle = template.turn.split("{content}")[0].split("{instruction}")
        default = template.instruction
        given = "messages | selectattr('role', 'equalto', 'system') | map(attribute='content')"
        told = f"{{{{ ({given} | first) or {default!r} }}}}{{{{ {middle!r} }}}}"
        chosen = "messages | rejectattr('role', 'equalto', 'system')"
    text = f"{{% for message in {chosen} %}}{{{{ message['content'] }}}}{{% endfor %}}"
    shown = "text | trim" if template.stripped else "text"
    return (
        f"{{{{ {head!r} }}}}{told}{{% set text %}}{text}{{% endset %}}{{{{ {shown} }}}}"
        f"{{{{ {tail!r} }}}}"
    )
