"""Position ids for the rotary embedding: sequential, or M-RoPE's time, height and width."""

# Shapes: B items of a batch, T tokens, V videos.

from __future__ import annotations

from torch import Tensor, nn

from .backbones import Backbone, backbone_of

__all__ = ["token_positions"]


def token_positions(
    model: nn.Module,
    positions: str,
    input_ids: Tensor,
    attention_mask: Tensor,
    second_per_grid_ts: Tensor | None = None,
    **grids: Tensor | None,
) -> Tensor:
    """Position ids [3, B, T]: three times the index in the row, or M-RoPE's time, height, width.

    Where the family's positions have one axis, [B, T]: the index alone.

    Args
        model               a model of `backbones`; for M-RoPE one with `get_rope_index`
        positions           "sequential" or "mrope", see EmbedConfig
        input_ids           [B, T]  padded on either side
        attention_mask      [B, T]  0 for padding, which takes no position
        second_per_grid_ts  [V]  seconds between a video's temporal patches (Qwen2.5-VL)
        grids               image_grid_thw and video_grid_thw, [media, 3], or None
    Text alone has the same positions either way.
    """
    grids = {name: grid for name, grid in grids.items() if grid is not None}
    if positions == "sequential" or not grids:
        places = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        return places if (backbone_of(model) or Backbone).axes == 1 else places.expand(3, -1, -1)
    if second_per_grid_ts is not None:
        grids["second_per_grid_ts"] = second_per_grid_ts
    kinds = (input_ids == model.config.image_token_id).int()  # 1 image, 2 video, 0 the rest
    kinds += 2 * (input_ids == model.config.video_token_id).int()
    return model.get_rope_index(
        input_ids, mm_token_type_ids=kinds, attention_mask=attention_mask, **grids
    )[0]
