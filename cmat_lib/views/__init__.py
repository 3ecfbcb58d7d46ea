"""The views of the market: `VIEWS` is the registry; a view of one's own is one more record in it."""

from cmat_lib.views import clock, complexity, flow, market, ohlcv, table, topology
from cmat_lib.views.registry import Asked, Registry, Sliding, Values, View

VIEWS = Registry(of_table=table.table_view)
for _view in (ohlcv.VIEW, topology.VIEW, complexity.VIEW, clock.VIEW, market.VIEW, flow.VIEW):
    VIEWS.add(_view)

__all__ = ["VIEWS", "Asked", "Registry", "Sliding", "Values", "View"]
