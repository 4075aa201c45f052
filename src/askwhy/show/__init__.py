"""Pictures from plain arrays. Every function takes `ax`, returns it, and never shows it."""

from askwhy.show.matrix import matrix
from askwhy.show.pictures import as_data_uri, bars, heatmap, overlay
from askwhy.show.regions import regions
from askwhy.show.rule import card_of
from askwhy.show.text import text
from askwhy.show.waterfall import waterfall

__all__ = ["as_data_uri", "bars", "card_of", "heatmap", "matrix", "overlay", "regions", "text", "waterfall"]
