"""A view of somebody's own in one file: log returns over a few hours."""

import numpy as np

from cmat_lib import VIEWS, Values, View
from cmat_lib.encoders.plain import MLPEncoder

HOURS = (1, 3, 12)


def returns(asked):
    close = np.log(asked.candles["close"].to_numpy())
    return Values(np.stack([close[asked.rows] - close[asked.rows - n] for n in HOURS], axis=1).astype(np.float32))


VIEWS.add(
    View(
        name="momentum",
        title="Momentum",
        names=lambda config: [f"return_of_{n}" for n in HOURS],
        compute=returns,
        encoder=lambda config: MLPEncoder(len(HOURS), output_dim=16),
        look_back=lambda config: max(HOURS) + 1,
    )
)
