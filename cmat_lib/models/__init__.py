"""Encoders, fusion, the model of both tasks, and their loss."""

from cmat_lib.models.encoders import ComplexityEncoder, OHLCVNBEATSEncoder, TDAEncoder
from cmat_lib.models.fusion import FUSIONS, ConcatFusion, CrossModalAttentionFusion
from cmat_lib.models.losses import MultiTaskLoss
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, build_model, parameter_table

__all__ = [
    "FUSIONS",
    "ComplexityEncoder",
    "ConcatFusion",
    "CrossModalAttentionFusion",
    "MultiTaskCrossModalAttention",
    "MultiTaskLoss",
    "OHLCVNBEATSEncoder",
    "TDAEncoder",
    "build_model",
    "parameter_table",
]
