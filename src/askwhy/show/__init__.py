"""Pictures from plain arrays. Every function takes `ax`, returns it, and never shows it."""

from askwhy.show.attention import attention_map, deletion
from askwhy.show.beeswarm import beeswarm
from askwhy.show.cells import cells
from askwhy.show.decision import decision
from askwhy.show.dependence import dependence, scatter
from askwhy.show.force import force
from askwhy.show.force_rows import force_rows_svg
from askwhy.show.force_svg import force_svg
from askwhy.show.importance import importance
from askwhy.show.interactions import interaction_pairs, interactions
from askwhy.show.matrix import matrix
from askwhy.show.over_layers import over_layers
from askwhy.show.partners import partner_shares, strongest_partner
from askwhy.show.pictures import as_data_uri, bars, heatmap, overlay
from askwhy.show.probe import probe_curves
from askwhy.show.regions import regions
from askwhy.show.rule import card_of
from askwhy.show.scatter_groups import scatter_groups
from askwhy.show.sequence import sequence
from askwhy.show.similarities import similarities
from askwhy.show.table_html import sorter, table_html
from askwhy.show.text import text
from askwhy.show.tiles import tiles
from askwhy.show.waterfall import waterfall

__all__ = [
    "as_data_uri",
    "attention_map",
    "bars",
    "beeswarm",
    "card_of",
    "cells",
    "decision",
    "deletion",
    "dependence",
    "force",
    "force_rows_svg",
    "force_svg",
    "heatmap",
    "importance",
    "interaction_pairs",
    "interactions",
    "matrix",
    "over_layers",
    "overlay",
    "partner_shares",
    "probe_curves",
    "regions",
    "scatter",
    "scatter_groups",
    "sequence",
    "similarities",
    "sorter",
    "strongest_partner",
    "table_html",
    "text",
    "tiles",
    "waterfall",
]
