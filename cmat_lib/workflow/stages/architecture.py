"""Stage 03: the parts of the model, beside what the source states."""

import pandas as pd

from cmat_lib.models import MultiTaskCrossModalAttention, parameter_table
from cmat_lib.workflow.run import Run


def describe_model(model: MultiTaskCrossModalAttention, run: Run) -> pd.DataFrame:
    """Stage 03: table of the model's parts and their parameters."""
    table = pd.DataFrame(parameter_table(model), columns=["part", "parameters", "source"])
    run.save_json("model_spec.json", {"parameters": table.to_dict("records"), "tokens": list(model.fusion.token_names)})
    return table
