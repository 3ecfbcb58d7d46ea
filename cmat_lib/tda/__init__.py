"""Topology of price windows: embedding, persistence and features."""

from cmat_lib.tda.features import feature_names, tda_features
from cmat_lib.tda.persistence import rips_diagrams
from cmat_lib.tda.point_cloud import takens_embedding

__all__ = ["feature_names", "rips_diagrams", "takens_embedding", "tda_features"]
