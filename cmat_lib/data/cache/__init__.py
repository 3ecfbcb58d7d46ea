"""Features of windows, computed once and kept on disk."""

from cmat_lib.data.cache.build import Sliding, cached_features, worker_pool
from cmat_lib.data.cache.chunks import cache_info, clean, split_series, verify

__all__ = ["Sliding", "cache_info", "cached_features", "clean", "split_series", "verify", "worker_pool"]
