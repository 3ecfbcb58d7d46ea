"""``cmat train``: prepare and train in one process, without notebooks."""

import logging
from functools import partial
from typing import Annotated

import typer

from cmat_lib.commands.options import Assignments, Params, RunDir, examples, run_config
from cmat_lib.config.load import nest


@examples("cmat train --params params/demo.yaml --epochs 3", "cmat train --params params/demo.yaml --resume")
def train(
    params: Params = None,
    assignments: Assignments = None,
    run_dir: RunDir = None,
    cache_dir: Annotated[str | None, typer.Option(help="cache.dir")] = None,
    trust_cache: Annotated[bool, typer.Option("--trust-cache", help="cache.trust: true")] = False,
    data_dir: Annotated[str | None, typer.Option(help="data.data_dir")] = None,
    log_level: Annotated[str | None, typer.Option(help="logging.level")] = None,
    epochs: Annotated[int | None, typer.Option(help="training.epochs")] = None,
    batch_size: Annotated[int | None, typer.Option(help="training.batch_size")] = None,
    lr: Annotated[float | None, typer.Option(help="training.learning_rate")] = None,
    fusion_hidden_dim: Annotated[int | None, typer.Option(help="fusion.hidden_dim and fusion.output_dim")] = None,
    fusion_num_heads: Annotated[int | None, typer.Option(help="fusion.num_heads")] = None,
    fusion_num_layers: Annotated[int | None, typer.Option(help="fusion.num_layers")] = None,
    device: Annotated[str | None, typer.Option(help="training.device: auto, cpu or cuda")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything from training on.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training of the same parameters that was cut off.")
    ] = False,
) -> None:
    """Prepare data and features as needed, and train, without notebooks.

    With training.devices above 1 this starts one process per device. On several machines start the same command on
    each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set, or under torchrun or SLURM.
    """
    flags = {"cache.dir": cache_dir, "cache.trust": trust_cache or None, "data.data_dir": data_dir}
    flags |= {"training.epochs": epochs, "training.batch_size": batch_size, "training.learning_rate": lr}
    flags |= {"training.device": device, "training.resume": resume or None, "logging.level": log_level, "seed": seed}
    flags |= {"fusion.hidden_dim": fusion_hidden_dim, "fusion.output_dim": fusion_hidden_dim}
    flags |= {"fusion.num_heads": fusion_num_heads, "fusion.num_layers": fusion_num_layers}
    changes = nest({key: value for key, value in flags.items() if value is not None})
    config = run_config(params, assignments, run_dir or (None if params else "outputs/train"), changes)
    logging.basicConfig(level=config.logging.level, format="%(levelname)s %(name)s: %(message)s")
    from cmat_lib.workflow.stages.training import run_until_training

    run_until_training(config, partial(print, flush=True))
