"""What the model looked at."""

from cmat_lib.explain.attention import (
    AttentionMaps,
    attention_entropy,
    attention_maps,
    collect_maps,
    rollout,
    stack_attention_maps,
    walk_layers,
)

__all__ = [
    "AttentionMaps",
    "attention_entropy",
    "attention_maps",
    "collect_maps",
    "rollout",
    "stack_attention_maps",
    "walk_layers",
]
