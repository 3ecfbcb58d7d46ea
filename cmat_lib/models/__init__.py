"""Encoders, fusion, the model of both tasks, and their loss."""

from cmat_lib.encoders.plain import ComplexityEncoder, OHLCVNBEATSEncoder, TDAEncoder, TDAGroupEncoder
from cmat_lib.models.fusion import FUSIONS, ConcatFusion, GatedFusion
from cmat_lib.models.fusion.attention import CrossModalAttentionFusion
from cmat_lib.models.fusion.bottleneck import BottleneckFusion
from cmat_lib.models.losses import MultiTaskLoss
from cmat_lib.models.multitask import MultiTaskCrossModalAttention, build_model, input_shapes, parameter_table

__all__ = [
    "FUSIONS",
    "BottleneckFusion",
    "ComplexityEncoder",
    "ConcatFusion",
    "CrossModalAttentionFusion",
    "GatedFusion",
    "MultiTaskCrossModalAttention",
    "MultiTaskLoss",
    "OHLCVNBEATSEncoder",
    "TDAEncoder",
    "TDAGroupEncoder",
    "build_model",
    "input_shapes",
    "parameter_table",
]
