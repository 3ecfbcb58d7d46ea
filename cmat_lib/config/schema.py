"""The schema: every parameter of CMAT, typed and in twelve sections, without torch or giotto-tda.

Types are strict: a YAML ``yes`` is no number, ``1e-3`` without a dot is text.
"""
# One line per parameter reads better than four.
# fmt: off

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cmat_lib.config.inputs import CacheConfig, ComplexityConfig, DataConfig, LabelsConfig, TdaConfig, ViewsConfig
from cmat_lib.config.section import Depth, Positive, Rate, Section, Seed, Share, Switch

SOURCE_MODALITIES = ("nbeats", "tda", "complexity")  # the views of the source document; all views stand in cmat_lib.views
AUXILIARY_TARGETS = ("log_volatility", "log_range", "log_rise", "log_fall")
STACK_TYPES = ("trend", "seasonality", "generic")
OF_THE_LOSS = "of the loss"  # marks a key that changes what the loss is, so that losses of two values cannot be compared
NBEATS_ATTENTION_HEADS = 8  # the N-BEATS attention block has eight heads over one token per stack


class FusionConfig(Section):
    """How the tokens of the modalities meet."""

    fusion_type: str = Field("cross_modal_attention", description="cross_modal_attention, bottleneck, gated or concat (an entry of the fusion registry)")
    tokens: Literal["modality", "fine"] = Field("modality", description="modality: one token each; fine: one for each N-BEATS stack, each group of topology features (curve and summary of H0 and H1), and complexity")
    hidden_dim: Positive = Field(256, description="token width (D)")
    num_heads: Positive = Field(8, description="attention heads (h)")
    num_layers: Depth = Field(2, description="transformer layers")
    ffn_dim: Positive = Field(1024, description="width of the feed-forward part")
    dropout: Rate = Field(0.1, description="dropout of the fusion")
    use_cls_token: bool = Field(False, description="cross_modal_attention: read a [CLS] token instead of the mean of all tokens")
    bottleneck_tokens: Positive = Field(4, description="bottleneck: tokens through which the modalities meet")
    output_dim: Positive = Field(256, description="must equal hidden_dim")

    @model_validator(mode="after")
    def _widths_fit(self) -> Self:
        if self.hidden_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide hidden_dim {self.hidden_dim}")
        if self.output_dim != self.hidden_dim:
            raise ValueError(f"output_dim {self.output_dim} must equal hidden_dim {self.hidden_dim}")
        return self


class ModelConfig(Section):
    """Encoders."""

    model_type: Literal["cross_modal_attention"] = Field("cross_modal_attention", description="the source's name of the model")
    modalities: list[str] = Field([*SOURCE_MODALITIES], min_length=1, description="views that the model sees: nbeats, tda, complexity, clock (hour and weekday), market (the other symbols), flow (takers and trades), or a table of the section views; of the first three, one that is not listed gets a learned constant (other fusions than cross_modal_attention leave it out)")
    nbeats_hidden_size: Positive = Field(1024, description="width of the N-BEATS encoder output")
    nbeats_num_stacks: Depth = Field(4, description="stacks; must match nbeats_stack_types")
    nbeats_stack_types: list[Literal[STACK_TYPES]] = Field(["trend", "seasonality", "generic", "generic"], description="basis of each stack")
    nbeats_num_blocks: Depth = Field(6, description="blocks per stack")
    nbeats_num_layers: Depth = Field(6, description="fully connected layers per block")
    nbeats_block_width: Positive = Field(128, description="width inside a block")
    use_attention: bool = Field(True, description="self-attention over the stacks' outputs")
    tda_encoder_dim: Positive = Field(256, description="width of the TDA encoder output")
    complexity_encoder_dim: Positive = Field(64, description="width of the complexity encoder output")
    clock_encoder_dim: Positive = Field(64, description="width of the clock encoder output")
    view_encoder_dim: Positive = Field(64, description="width of the encoder output of every other view")
    encoder_dropout: Rate = Field(0.1, description="dropout inside the encoders")
    auxiliary_head: Annotated[bool, OF_THE_LOSS] = Field(False, description="forecast volatility, range, rise and fall of the horizon too, and read trigger and max_pct off these forecasts")

    @model_validator(mode="after")
    def _stacks_fit(self) -> Self:
        if len(self.nbeats_stack_types) != self.nbeats_num_stacks:
            raise ValueError(f"nbeats_num_stacks is {self.nbeats_num_stacks}, nbeats_stack_types lists {len(self.nbeats_stack_types)}")
        parts = self.nbeats_num_stacks * (NBEATS_ATTENTION_HEADS if self.use_attention else 1)
        if self.nbeats_hidden_size % parts:
            raise ValueError(f"nbeats_hidden_size {self.nbeats_hidden_size} must be a multiple of {parts} (stacks times attention heads)")
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError("a view is listed twice in modalities")
        return self


class TrainingConfig(Section):
    """Loss, optimiser and the training loop."""

    batch_size: Positive = Field(2048, description="samples per forward pass, over all devices")
    gradient_accumulation_steps: Positive = Field(4, description="forward passes per optimiser step")
    epochs: Positive = Field(500, description="largest number of epochs")
    early_stopping_patience: Positive = Field(30, description="epochs without a better stop part before training ends")
    early_stopping_metric: Literal["loss", "roc_auc"] = Field("loss", description="what better means on the stop part; it also picks the best epoch")
    learning_rate: Annotated[float, Field(gt=0)] = Field(0.0005, description="encoders, projections and heads")
    transformer_learning_rate: Annotated[float, Field(gt=0)] = Field(0.0003, description="transformer layers")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.01, description="AdamW; not on biases, norms, positions")
    warmup_share: Rate = Field(0.05, description="share of the optimiser steps that warm up; cosine after")
    gradient_clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest gradient norm")
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = Field(0, description="first epochs in which the encoders do not learn")
    loss: Annotated[str, OF_THE_LOSS] = Field("multi_task", description="multi_task (focal loss and squared error), or one of your own")
    focal_gamma: Annotated[float, Field(ge=0), OF_THE_LOSS] = Field(2.0, description="focusing exponent of the focal loss")
    positive_weight: Annotated[Literal["balanced"] | Annotated[float, Field(gt=0)], OF_THE_LOSS] = Field("balanced", description="weight of triggers; balanced is negatives over positives in training")
    max_pct_clip_quantile: Annotated[float, Field(gt=0.5, le=1), OF_THE_LOSS] = Field(0.995, description="max_pct is clipped at this training quantile in the loss")
    task_weighting: Annotated[Literal["fixed", "learned"], OF_THE_LOSS] = Field("fixed", description="learned: homoscedastic uncertainty weights")
    trigger_weight: Annotated[float, Field(ge=0), OF_THE_LOSS] = Field(1.0, description="fixed weight of the trigger loss")
    max_pct_weight: Annotated[float, Field(ge=0), OF_THE_LOSS] = Field(1.0, description="fixed weight of the max_pct loss")
    auxiliary_weight: Annotated[float, Field(gt=0), OF_THE_LOSS] = Field(1.0, description="weight of the loss of the auxiliary head, if the model has one")
    ema_decay: Rate = Field(0.0, description="the model that is judged and kept is a moving average of the weights over the steps, with this decay; 0 is none")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto is the first GPU, else the CPU")
    mixed_precision: Switch = Field("auto", description="bf16 where the chip has it, else fp16 with loss scaling; auto is off on a CPU")
    compile: Switch = Field("auto", description="torch.compile; auto is off on a CPU")
    cudnn_benchmark: Switch = Field("auto", description="cuDNN benchmark mode; auto is off on a CPU. It buys nothing here: the model has no convolutions")
    tf32: Switch = Field("auto", description="TF32 matrix products; auto is off on a CPU")
    determinism: Literal["fast", "strict"] = Field("fast", description="strict asks torch for deterministic kernels")
    devices: Positive = Field(1, description="GPUs (or processes on a CPU) per node; batch_size is shared among all of them")
    num_nodes: Positive = Field(1, description="machines; the same command is started on each")
    resume: bool = Field(False, description="go on from last.pt if a training with the same parameters was killed or interrupted")

    @model_validator(mode="after")
    def _some_task_counts(self) -> Self:
        if self.trigger_weight == 0 and self.max_pct_weight == 0:
            raise ValueError("trigger_weight and max_pct_weight are both 0: nothing would be learned")
        if self.task_weighting == "learned" and 0 in (self.trigger_weight, self.max_pct_weight):
            raise ValueError("task_weighting 'learned' starts at the two weights, and one of them is 0; use 'fixed'")
        if self.freeze_encoder_epochs >= self.epochs:
            raise ValueError(f"freeze_encoder_epochs {self.freeze_encoder_epochs} must be below epochs {self.epochs}")
        return self


class EvaluationConfig(Section):
    """Scores and their intervals."""

    calibration: Literal["isotonic", "temperature"] = Field("isotonic", description="from raw score to probability; temperature: slope and bias on the logit")
    top_shares: list[Share] = Field([0.01, 0.02, 0.05], min_length=1, description="precision, recall and lift are also given among these shares of the highest scores; what acting on them would have returned, too")
    cost_pct: Annotated[float, Field(ge=0)] = Field(0.2, description="fees and spread of one round trip (buy and sell), in percent")
    bootstrap_samples: Annotated[int, Field(ge=50)] = Field(500, description="resamples of the block bootstrap")
    block_horizons: Annotated[int, Field(ge=7)] = Field(7, description="bootstrap block length, in horizons")
    confidence: Share = Field(0.95, description="coverage of the intervals")
    batch_size: Positive = Field(4096, description="samples per forward pass")

    @field_validator("top_shares")
    @classmethod
    def _shares_ascend(cls, shares: list[float]) -> list[float]:
        if sorted(set(shares)) != shares:
            raise ValueError("top_shares must be ascending and distinct")
        return shares


class ExplainConfig(Section):
    """Attention maps, and what stands beside them."""

    max_samples: Positive = Field(20000, description="test samples whose maps are kept, evenly spaced in time")
    attribution_samples: Positive = Field(2000, description="of these, samples for Shapley values, permutations and controls, evenly spaced in time")
    absent_draws: Annotated[int, Field(ge=0)] = Field(32, description="training samples that stand in for absent modalities in Shapley values; 0: their mean embedding")
    permutations: Annotated[int, Field(ge=2)] = Field(3, description="draws of every permutation of inputs")
    other_runs: list[str] = Field([], description="run folders of the same data with another seed, as controls")
    batch_size: Positive = Field(2048, description="samples per forward pass")


class LoggingConfig(Section):
    """Where models go inside the run folder and how much is said."""

    save_dir: str = Field("models/cross_modal_attention", description="inside the run folder")
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="log level")
    mlflow: bool | Annotated[str, Field(min_length=1)] = Field(False, description="log finished runs to MLflow too: true (MLFLOW_TRACKING_URI, else mlflow.db beside the run folders) or a tracking URI")

    @field_validator("save_dir")
    @classmethod
    def _stays_inside_the_run(cls, save_dir: str) -> str:
        path = Path(save_dir)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in save_dir:
            raise ValueError("save_dir must be a relative path inside the run folder")
        return save_dir

    @field_validator("mlflow")
    @classmethod
    def _holds_no_password(cls, mlflow: bool | str) -> bool | str:
        if isinstance(mlflow, str) and re.search(r"://[^/]+@", mlflow):
            raise ValueError("leave name and password out of this file, which is copied into every run; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return mlflow


class Config(Section):
    """All parameters of a run: two keys and twelve sections."""

    run_dir: str = Field("outputs/demo", description="run folder; relative paths start at the project root")
    seed: Seed = Field(0, description="seed of everything from training on")
    data: DataConfig = DataConfig()
    labels: LabelsConfig = LabelsConfig()
    cache: CacheConfig = CacheConfig()
    tda: TdaConfig = TdaConfig()
    complexity: ComplexityConfig = ComplexityConfig()
    views: ViewsConfig = ViewsConfig()
    fusion: FusionConfig = FusionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    explain: ExplainConfig = ExplainConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _sections_fit_together(self) -> Self:
        if self.labels.source == "file" and self.data.data_dir is None:
            raise ValueError("labels.source is 'file' but data.data_dir is null: the synthetic market has no label columns")
        return self


SECTIONS = tuple(name for name, field in Config.model_fields.items() if issubclass(field.annotation, Section))
