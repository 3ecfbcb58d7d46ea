"""What the model looked at, and what its answers hang on; every module of it is left in the mode it was found in."""

from cmat_lib.explain.attention import (
    AttentionMaps,
    attention_entropy,
    attention_maps,
    collect_maps,
    gate_values,
    gradient_attention,
    rollout,
    stack_attention_maps,
    walk_layers,
)
from cmat_lib.explain.decomposition import decompose
from cmat_lib.explain.shapley import modality_shapley
from cmat_lib.explain.tidy import tidy_maps

__all__ = [
    "AttentionMaps",
    "attention_entropy",
    "attention_maps",
    "collect_maps",
    "decompose",
    "gate_values",
    "gradient_attention",
    "modality_shapley",
    "rollout",
    "stack_attention_maps",
    "tidy_maps",
    "walk_layers",
]
