"""Interactive views for notebooks and applications: curated pairs, the loss, the gap, search.

Each view has a static function that draws and one that puts controls around it. Controls are a
second view only: whatever a notebook claims it also draws without them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "controls": ["Picture", "Slider", "follow", "text_box"],
        "closing": ["closing_controls", "draw_closed"],
        "losses": ["TEMPERATURES", "draw_loss", "loss_controls"],
        "pairs": ["browse", "draw_page", "select_rows"],
        "searching": ["ANY_MODALITY", "draw_results", "make_query", "search_box"],
    },
)
