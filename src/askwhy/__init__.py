"""askwhy: ask a trained model why. `wrap` a model, ask with a method, look at the Explanation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from askwhy._version import __version__ as __version__

if TYPE_CHECKING:
    from askwhy import errors, show, zoo
    from askwhy.ask import compare, explain
    from askwhy.components import features, patches, pixels, superpixels
    from askwhy.explanation import Explanation
    from askwhy.inside.activations import Activations, activations
    from askwhy.inside.attention import Attention, attention
    from askwhy.inside.neighbours import Neighbours, embedding_neighbours
    from askwhy.inside.probe import Probe, probe
    from askwhy.inside.projection import Projection, projection
    from askwhy.inside.similarity import Similarity, similarity
    from askwhy.local.anchor import anchors
    from askwhy.local.cam import cam, counterfactual_cam, grad_cam, grad_cam_plus_plus, guided_grad_cam, hires_cam, layer_cam
    from askwhy.local.coalition import ablation, occlusion
    from askwhy.local.decision_path import decision_path
    from askwhy.local.deep_lift import deep_lift
    from askwhy.local.expected import expected_gradients
    from askwhy.local.gradient import gradient, input_x_gradient, saliency, smooth, smooth_grad
    from askwhy.local.lime import lime
    from askwhy.local.lime_pick import lime_pick
    from askwhy.local.lime_widths import lime_widths
    from askwhy.local.linear import linear_effects
    from askwhy.local.lrp import lrp
    from askwhy.local.path import integrated_gradients
    from askwhy.local.relevance import deconvnet, guided_backprop
    from askwhy.local.rise import rise
    from askwhy.local.score_cam import score_cam
    from askwhy.local.shapley import shapley, shapley_interactions
    from askwhy.local.tree import tree_shap
    from askwhy.models import wrap
    from askwhy.models.remote import remote
    from askwhy.overall import regularizers
    from askwhy.overall.effects import Effect, effect
    from askwhy.overall.filters import Filters, filters
    from askwhy.overall.generator import Generator, train_generator
    from askwhy.overall.importance import Importance, importance, mean_importance
    from askwhy.overall.kernels import Weights, filter_weights
    from askwhy.overall.maximize import activation_maximization
    from askwhy.overall.objectives import aim, energy
    from askwhy.overall.portrait import Portrait
    from askwhy.overall.receptive import ReceptiveField, receptive_field
    from askwhy.registry import methods
    from askwhy.tables import background
    from askwhy.targets import concept, neuron
    from askwhy.wording import characters, sentences, words

_HOME = {
    "askwhy.ask": ("compare", "explain"),
    "askwhy.components": ("features", "patches", "pixels", "superpixels"),
    "askwhy.explanation": ("Explanation",),
    "askwhy.inside.attention": ("Attention", "attention"),
    "askwhy.inside.neighbours": ("Neighbours", "embedding_neighbours"),
    "askwhy.inside.activations": ("Activations", "activations"),
    "askwhy.inside.similarity": ("Similarity", "similarity"),
    "askwhy.inside.probe": ("Probe", "probe"),
    "askwhy.inside.projection": ("Projection", "projection"),
    "askwhy.local.gradient": ("smooth",),
    "askwhy.local.lime_pick": ("lime_pick",),
    "askwhy.local.lime_widths": ("lime_widths",),
    "askwhy.models": ("wrap",),
    "askwhy.models.remote": ("remote",),
    "askwhy.overall.effects": ("Effect", "effect"),
    "askwhy.overall.filters": ("Filters", "filters"),
    "askwhy.overall.generator": ("Generator", "train_generator"),
    "askwhy.overall.importance": ("Importance", "importance", "mean_importance"),
    "askwhy.overall.kernels": ("Weights", "filter_weights"),
    "askwhy.overall.maximize": ("activation_maximization",),
    "askwhy.overall.objectives": ("aim", "energy"),
    "askwhy.overall.portrait": ("Portrait",),
    "askwhy.overall.receptive": ("ReceptiveField", "receptive_field"),
    "askwhy.registry": ("methods",),
    "askwhy.tables": ("background",),
    "askwhy.targets": ("concept", "neuron"),
    "askwhy.wording": ("characters", "sentences", "words"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Activations", "Attention", "Effect", "Explanation", "Filters", "Generator", "Importance", "Neighbours", "Portrait", "Probe",
    "Projection", "ReceptiveField", "Similarity", "Weights", "ablation", "activation_maximization", "activations", "aim", "anchors",
    "attention", "background", "cam", "characters", "compare", "concept", "counterfactual_cam", "decision_path", "deconvnet", "deep_lift",
    "effect", "embedding_neighbours", "energy", "errors", "expected_gradients", "explain", "features", "filter_weights", "filters",
    "grad_cam", "grad_cam_plus_plus", "gradient", "guided_backprop", "guided_grad_cam", "hires_cam", "importance", "input_x_gradient",
    "integrated_gradients", "layer_cam", "lime", "lime_pick", "lime_widths", "linear_effects", "lrp", "mean_importance", "methods",
    "neuron", "occlusion", "patches", "pixels", "probe", "projection", "receptive_field", "regularizers", "remote", "rise", "saliency",
    "score_cam", "sentences", "shapley", "shapley_interactions", "show", "similarity", "smooth", "smooth_grad", "superpixels",
    "train_generator", "tree_shap", "words", "wrap", "zoo",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    globals()[name] = found = _find(name)  # so that the next access is an ordinary one
    return found


def _find(name: str) -> Any:
    if name == "regularizers":
        return importlib.import_module("askwhy.overall.regularizers")
    if name in ("errors", "show", "zoo"):
        return importlib.import_module(f"askwhy.{name}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    if not name.startswith("_"):
        from askwhy.registry import methods

        for method in methods():
            if method.name == name:
                return method.function
    raise AttributeError(f"module 'askwhy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
