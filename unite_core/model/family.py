"""What a family of models is, and what an embedder trained on one is: the words of `families`.

A `Backbone` is an architecture: classes, tokens, how media become tokens and tokens a vector, LoRA
targets, fast paths. A `Recipe` is what one set of released weights needs on top: the prompt with
the place of its instruction, positions, limits of pixels and frames, and the names by which it is
known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Backbone", "Recipe", "Template"]


@dataclass(frozen=True)
class Template:
    """How an item and its instruction become a prompt; see `prompts.build_prompt`."""

    turn: str
    """The prompt around {content}; with {instruction} where it has a place of its own, such as the
    system turn. Without, an instruction stands before the text."""
    instruction: str | Mapping[str, str] = ""
    """Stands in for an instruction where an item has none; by the item's modalities
    ("image", "text+image"), or one for all."""
    punctuated: bool = False
    """An instruction that does not end in punctuation gets a full stop."""
    joint: str = "\n"
    """Between an instruction and the content or text that follows it, unless it ends in white
    space."""
    summary: str = ""
    """Follows the content; {modalities} are the item's, such as "sentence and image"."""
    media: tuple[str, ...] = ()
    """Order of media that have no place in the text, which they precede; () is the order of the
    item's keys, with a warning if there is a text."""
    by_keys: bool = False
    """Media that have no place in the text stand before or after it, as the item's keys do."""
    gap: str = "\n"
    """Between media, and between them and the text."""
    image: str = "<|vision_start|><|image_pad|><|vision_end|>"
    video: str = "<|vision_start|><|video_pad|><|vision_end|>"
    stripped: bool = False
    """Content without white space around it."""
    special_tokens: bool = False
    """With the tokens that the tokenizer itself adds around a text."""
    reserved: tuple[str, ...] = ()
    """Tokens that mean something else than text and so cannot be part of one."""


@dataclass(frozen=True)
class Recipe:
    """One embedder, or one line of them that share all this."""

    name: str
    """The name of its prompt in `EmbedConfig`."""
    title: str
    template: Template
    known_as: str
    """Regular expression, in lower case, of a folder's or repository's name, or of a class in
    config.json."""
    config: Mapping[str, Any]
    """Fields of EmbedConfig that differ from its defaults."""
    source: str
    """Where all this was read: repository, file and commit."""


@dataclass(frozen=True)
class Backbone:
    """One family; class names are those of transformers.

    A fast path is left at its default, off, unless the classes named for it are known to compute
    the same: tests compare vectors and gradients with transformers' own forward.
    """

    config: str  # class of the whole configuration
    model: str  # class of the model without a language modelling head
    tokens: tuple[str, str, str] = (  # of padding, of a piece of an image, of one of a video
        "<|endoftext|>", "<|image_pad|>", "<|video_pad|>",
    )  # fmt: skip
    pooling: str = "last"  # or "mean", over all tokens of an item: see `pooling`
    width: str = "hidden_size"  # the size of a vector, by its name in text_config
    axes: int = 3  # of a position: time, height and width, or 1 for the place alone
    video_time: str = "none"  # where a video's time goes, see Processor
    merge: str = "spatial_merge_size"  # side of the patches of a token, a name in vision_config
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # colours where the
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)  # files say nothing
    lora_targets: str = (  # regular expression of module names
        r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
    )
    vision: str = r"visual\."  # regular expression, the beginning of names of weights that see,
    projector: str = r"visual\.(deepstack_)?merger(_list)?\."  # of those that only project
    encode_frames: Callable | None = None  # tower without grids: see `vision.media_tokens`
    cached_vision: bool = False  # visual tokens are all that the tower gives: they can be kept
    pooled_decoder: tuple[str, str] | None = None  # text model, layer: see `decoder.pooled_states`
    plain_tower: tuple[str, str] | None = None  # tower, block: see `vision.visual_tokens`
    packed_decoder: bool = False  # all layers attend fully, see `packing`
    packed_tower: bool = False  # hands all its windows or frames over at once, see `packing`
    plain_text: bool = False  # for text alone the language model is a Qwen2
    unused_weights: str = r"lm_head\.weight"  # regular expression; tied or not, for nothing here
    left_out: tuple[str, ...] = ()  # parts of the configuration whose modules are not made
    fixed: Mapping[str, Any] = field(default_factory=dict)  # fields of EmbedConfig with no choice
    float16: bool = True  # whether that type holds its activations
    known_as: str = r"\0"  # names of the plain checkpoints, as in Recipe
    recipes: tuple[Recipe, ...] = field(default=())  # embedders trained on it
