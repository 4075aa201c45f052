"""Pictures from plain arrays. Every function takes `ax`, returns it, and never shows it."""

from askwhy.show.pictures import as_data_uri, bars, heatmap, overlay
from askwhy.show.text import text

__all__ = ["as_data_uri", "bars", "heatmap", "overlay", "text"]
