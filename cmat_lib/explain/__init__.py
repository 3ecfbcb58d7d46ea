"""What the model looked at, and what its answers hang on; every module of it is left in the mode it was found in."""

from cmat_lib.explain.attention import attention_maps
from cmat_lib.explain.shapley import StandIns, modality_shapley

__all__ = ["StandIns", "attention_maps", "modality_shapley"]
