"""Topology of price windows: embedding, persistence, and the features of diagrams."""

from cmat_lib.tda.features import feature_names, tda_features
from cmat_lib.tda.persistence import rips_diagrams
from cmat_lib.tda.point_cloud import takens_embedding
from cmat_lib.tda.sliding import SlidingRips, sliding_diagrams

__all__ = ["SlidingRips", "feature_names", "rips_diagrams", "sliding_diagrams", "takens_embedding", "tda_features"]
