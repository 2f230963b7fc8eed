"""One training run as data: the sections of a recipe (recipes/*.yaml) and their defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Arrangement = Literal["random", "buffered_shuffle", "ascending", "descending"]


class Section:
    """What all sections share: pydantic, which reads recipes, refuses keys that they do not have."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """The network, and what it starts from."""

    family: str | None = None  #                     with `variant` or `params`; None = that of `start`
    variant: str | None = None  #                    a published architecture, such as PixelDiT-XL
    params: dict[str, Any] = field(default_factory=dict)  # of the family, over the variant's
    class_names: tuple[str, ...] | None = None  #    None = those of the data, or of `start`
    start: str | None = None  #                      a checkpoint to fine-tune; None = initial weights as published
    weights: Literal["auto", "ema", "raw"] = "auto"  # of that checkpoint
    encoder: str | None = None  #                    file of the frozen encoder of a network that has one
    block_dropout: float = 0.0  #                    in the middle half of the patch blocks, while it trains

    def __post_init__(self) -> None:
        if not 0 <= self.block_dropout < 1:
            raise ValueError("block_dropout is a probability, at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class BucketConfig(Section):
    """Aspect buckets: sizes with about the same number of pixels (spec: pixelhdm, 12)."""

    min_side: int = 256
    max_side: int = 1024
    max_aspect: float = 2.0
    area: int | None = (
        None  #                       in pixels: the model's own trained sizes of about it, in their place
    )
    arrangement: Arrangement = "random"  #           of the batches; buffered_shuffle: as PixelHDM's trainer does


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """The images, and what each is conditioned on."""

    kind: Literal["folder", "captions", "mnist", "cifar10", "webdataset"] = "folder"
    path: str = ""
    size: tuple[int, int] | None = None  #           height, width; None = the model's trained size
    buckets: BucketConfig | None = None  #           several sizes in place of one
    crop: Literal["center", "random"] = "center"
    flip: bool = False  #                            mirror half of the images
    drop_last: bool = True  #                        leave out the last batch of an epoch if it is short
    text_states: str | None = None  #                folder that `encode` wrote, for families of text
    default_caption: str | None = None  #            of images without one; None = an error before the run
    workers: int = 2  #                              processes that read images, for each process that trains


@dataclass(frozen=True, kw_only=True)
class RepaConfig(Section):
    """Alignment of patch tokens with the features of a frozen encoder (REPA, arXiv 2410.06940; iREPA)."""

    encoder: str = ""  #                             a folder or hub name for transformers, or "timm:NAME"
    encoder_size: int | None = None  #               side of the square images it sees; None = a patch for each patch
    block: int = 8  #                                whose output is aligned, counted from 1
    weight: float = 0.5
    projector: Literal["mlp", "conv"] = "mlp"  #     conv: iREPA, with spatially normalized features
    hidden_size: int | None = None  #                of the MLP; None = the width of the network
    similarity: Literal["cosine_distance", "negative_cosine"] = "cosine_distance"
    resample: Literal["student", "larger"] = "student"  # which grid gives way if the token counts differ
    until: int | None = None  #                      optimizer step after which it ends; None = never


@dataclass(frozen=True, kw_only=True)
class FrequencyConfig(Section):
    """DCT-weighted loss of the velocity (spec: pixelhdm, 11)."""

    weight: float = 1.0
    quality: int = 90  #                             of the JPEG tables that weigh frequencies, 1 to 100
    ycbcr: bool = True


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig(Section):
    """The loss."""

    times: Literal["logit_normal", "uniform", "integer"] = "logit_normal"  # integer: text-to-image's table of 1000
    time_mean: float = 0.0  #                        of the normal numbers: below 0, more times near the noise
    time_std: float = 1.0
    timeshift: float = 1.0
    min_noise_level: float | None = 0.05  #          lower bound of 1 - t in the loss of image predictions; None = none
    dropout: float = 0.1  #                          of labels or captions, for classifier-free guidance
    grounding_dropout: float | None = None  #        of what a frozen encoder sees; None = 0.1 where there is one
    joint_dropout: float = 0.0  #                    of both at once, beside each on its own
    grounding_dropout_start: int = 0  #              optimizer step from which the grounding is dropped
    repa: RepaConfig | None = None
    frequency: FrequencyConfig | None = None
    gamma_penalty: float = 0.0  #                    weight of the squared scales of PixelHDM's pixel blocks


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Section):
    """The optimizer and its learning rate."""

    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for the matrices of the blocks, AdamW for the rest
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_norms: bool = False  #                     weight decay for norms, biases and tables as well
    momentum: float = 0.95  #                        of Muon
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup: int = 0  #                               steps of linear warm-up
    decay: float = 1.0  #                            share of the run, at its end, in which cosine or linear falls
    min_learning_rate: float = 0.0
    max_grad_norm: float | None = 1.0  #             None = no clipping

    def __post_init__(self) -> None:
        if not 0 <= self.min_learning_rate <= self.learning_rate < math.inf:
            raise ValueError("learning_rate is at least min_learning_rate, and neither is negative or infinite")
        if not 0 <= self.decay <= 1 or self.warmup < 0:
            raise ValueError("decay is a share of the run, from 0 to 1, and warmup a number of steps, at least 0")


@dataclass(frozen=True, kw_only=True)
class AverageConfig(Section):
    """Moving averages of the weights; the first decay is the one that checkpoints and samples use."""

    decays: tuple[float, ...] = (0.9999,)
    power: tuple[float, ...] = ()  #                 relative widths (arXiv 2312.02696, 3), such as 0.05 and 0.1
    snapshot_every: int = 0  #                       steps between snapshots of the power averages; 0 = with checkpoints

    def __post_init__(self) -> None:
        if not self.decays and not self.power:
            raise ValueError("name at least one average, such as decays: [0.9999]")
        if not all(0 <= decay < 1 for decay in self.decays) or not all(0 < length < 0.28 for length in self.power):
            raise ValueError("decays are at least 0 and below 1, lengths of power averages above 0 and below 0.28")


@dataclass(frozen=True, kw_only=True)
class LoraConfig(Section):
    """Train low-rank updates in place of the weights (peft)."""

    rank: int = 16
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()  #                 ends of module names; () = all matrices of the blocks


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Section):
    """The sample sheet; None = the model's own settings."""

    every: int = 500  #                              optimizer steps; 0 = never
    count: int = 16
    steps: int | None = None
    cfg: float | None = None
    classes: tuple[int, ...] = ()  #                 () = spread over all
    captions: tuple[str, ...] = ()  #                of text_states; () = the first ones
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Section):
    """What the command `evaluate` is asked for, every `engine.evaluate_every` steps."""

    reference: str = (
        ""  #                           images to compare with: a folder, or an .npz of images or statistics
    )
    count: int = 5000  #                             images to generate
    extractor: str = "inception"  #                  of features
    extractor_weights: str | None = None  #          its file
    batch_size: int | None = None  #                 None = the command's own
    device: str | None = None  #                     None = that of the main process; "cuda:7" or "cpu" leave it alone
    options: tuple[str | int | float, ...] = ()  #   more words of the command line, such as "--steps", 50

    def __post_init__(self) -> None:
        if self.count < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError("count and batch_size are numbers of images, at least 1")


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Section):
    """How long and how the run computes."""

    steps: int = 1000  #                             optimizer steps
    batch_size: int = 64  #                          images per optimizer step, over all processes
    micro_batch: int | None = None  #                images per forward of a process; None = its whole share
    precision: Literal["bf16", "fp32"] = "fp32"  #   of the autocast; weights and optimizer stay float32
    compile: Literal["none", "blocks", "whole"] = "none"
    activation_checkpointing: bool = False
    seed: int = 0
    threads: int | None = None  #                    of the CPU; None = torch's choice
    log_every: int = 50
    save_every: int = 1000  #                        steps between checkpoints
    keep: int = 2  #                                 checkpoints to keep
    evaluate_every: int = 0  #                       steps between scores of the average (`evaluate`); 0 = never
    save_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"  # of the model files; training states are float32
    max_skipped: int = 10  #                         steps in a row with a non-finite loss or gradient, then stop
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.evaluate_every < 0:
            raise ValueError("evaluate_every is a number of steps, at least 1, or 0 for no scores")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Section):
    """One run."""

    title: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    lora: LoraConfig | None = None
    sample: SampleConfig = field(default_factory=SampleConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    about: dict[str, str] = field(default_factory=dict[str, str])  # license, author ...: as modelspec.KEY in files
    settings: dict[str, Any] | None = None  #        SamplingSettings to store in checkpoints; None = the family's
    engine: EngineConfig = field(default_factory=EngineConfig)
