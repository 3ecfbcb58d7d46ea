"""What the decision curve draws is the table it is given."""

import numpy as np
import pandas as pd

from cmat_lib.plots.evaluation import decision_curve


def test_curve_draws_returns_trades_and_the_random_band():
    index = pd.MultiIndex.from_product([["probability", "volatility"], [0.01, 0.1]], names=["score", "share"])
    table = pd.DataFrame({"net_pct": [0.5, 0.1, 0.0, np.nan], "trades": [10, 100, 20, 0]}, index=index)
    table["low"], table["high"] = table["net_pct"] - 0.2, table["net_pct"] + 0.3
    table["random_pct"], table["random_low"], table["random_high"] = -0.1, -0.4, [0.2, 0.1, 9, 9]
    top, bottom = decision_curve(table, 0.25, 0.95).axes
    drawn = {line.get_label(): line for line in top.lines}
    np.testing.assert_allclose(drawn["model"].get_ydata(), [0.5, 0.1])
    np.testing.assert_allclose(drawn["volatility alone"].get_ydata(), [0.0, np.nan])
    assert drawn["nothing left after costs"].get_ydata()[0] == 0
    band = top.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (-0.4, 0.2), "of the model's trades"
    bars = top.collections[1].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0.3, 0.8], [-0.1, 0.4]])
    np.testing.assert_allclose(bottom.lines[1].get_ydata(), [20, np.nan], err_msg="no trade has no place on a log axis")
    assert (
        "costs of 0.25 %" in (top.get_title(loc="left") or top.get_title()) and top.get_ylabel() == "percent per trade"
    )
    assert list(bottom.get_xticks()) == [0.01, 0.1]
