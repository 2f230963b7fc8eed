"""Everything that a run needs, checked before its first step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.save import hashes
from ..labels import find_class, imagenet_names
from ..model import Model
from ..sampling import check_size
from ..settings import SamplingSettings
from ..sizes import Size
from ..text_states.states import TextStates
from .block_dropout import add_block_dropout
from .blocks import apply_engine_config
from .config import TrainConfig
from .data.batch import ImageData
from .data.open import are_imagenet, open_data, read_class_names
from .data.order import GlobalBatchSampler
from .data.text_states import open_text_states
from .evaluate_command import check_balance, check_evaluate, check_files
from .frozen import set_trainable
from .lora import add_lora
from .loss import Loss
from .start import start_model
from .teacher import load_teacher


@dataclass
class Setup:
    """A run whose model and data are open and fit together."""

    config: TrainConfig  # with the class names of the data
    model: Model
    data: ImageData
    texts: TextStates | None
    size: Size

    @functools.cached_property
    def origin(self) -> dict[str, Any]:
        """Where the weights come from, for the metadata of files."""
        start = self.config.model.start
        return {} if start is None or not Path(start).is_file() else {"start": hashes(Path(start))}

    @property
    def state_bytes(self) -> int:
        """Of the float32 weights that are trained."""
        trained = [parameter for parameter in self.model.network.parameters() if parameter.requires_grad]
        return sum(4 * parameter.numel() for parameter in trained)

    def order(self, rank: int, world_size: int) -> GlobalBatchSampler:
        """The order of the images, as one process sees it."""
        engine = self.config.engine
        return GlobalBatchSampler(
            self.data.sizes(), engine.batch_size, engine.seed, drop_last=self.config.data.drop_last,
            rank=rank, world_size=world_size, groups=self.data.groups,
            arrangement=self.config.data.buckets.arrangement if self.config.data.buckets else "random",
        )  # fmt: skip

    def build_loss(self, device: torch.device) -> Loss:
        """The network with its loss, as the engine wraps it."""
        repa = self.config.objective.repa
        teacher = load_teacher(repa.encoder, device, repa.encoder_size) if repa is not None else None
        torch.manual_seed(self.config.engine.seed)  # of what is new beside the model, and of a LoRA's dropout
        set_trainable(self.model)
        if self.config.lora is not None:
            add_lora(self.model, self.config.lora, self.config.engine.seed)
        if self.config.model.block_dropout:
            add_block_dropout(self.model, self.config.model.block_dropout)
        loss = Loss(self.model, self.config.objective, teacher)
        apply_engine_config(self.model.network, self.config.engine)
        return loss


def set_up(config: TrainConfig) -> Setup:
    """Open the model and the data of a recipe.

    Raises:
        ValueError: something about them is missing, or they do not fit together.
    """
    if config.lora is not None and config.model.start is None:
        raise ValueError(
            "a LoRA needs a checkpoint to add to: set model.start, or train a whole network with lora=null."
        )
    if config.lora is not None and config.average.power:
        raise ValueError("average.power makes whole checkpoints, and a LoRA is none: set average.power=[].")
    names = config.model.class_names or read_class_names(config.data)
    shown = [entry[0] for entry in imagenet_names()] if names and are_imagenet(names) else names
    wanted = None if config.lora else shown
    model = start_model(config.model, wanted, config.engine.seed, keep_classes=config.lora is not None)
    check_evaluate(config, model.family)
    if config.engine.evaluate_every:
        check_files(config.evaluate)
        if model.family.condition == "class":
            check_balance(config.evaluate, model.params.num_classes)
    about = tuple(sorted((dict(model.spec.about) | config.about).items()))
    model.spec = dataclasses.replace(model.spec, settings=_settings(config, model), about=about)
    labels = (
        _labels(model, names or (), shown or ()) if config.lora else {name: i for i, name in enumerate(names or ())}
    )
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=names))
    size = config.data.size or model.spec.trained_sizes[0]
    check_size(model.spec, *size)
    data = open_data(config.data, model, size, labels)
    texts = None
    if model.family.condition == "text":
        texts = open_text_states(config.data, model, data)
        texts.check(config.sample.captions)
    return Setup(config, model, data, texts, size)


def _labels(model: Model, names: Sequence[str], shown: Sequence[str]) -> dict[str, int]:
    """The class of the start that each class of the data is; a LoRA does not change the table of classes.

    Raises:
        ValueError: a class that the start does not have.
    """
    labels = {}
    for name, text in zip(names, shown, strict=True):
        try:
            labels[name] = find_class(text, model.params.num_classes, model.class_names)
        except ValueError as error:
            raise ValueError(
                f"{error} A LoRA adds no classes: rename the folder, or fine-tune the whole network with lora=null."
            ) from error
    return labels


def _settings(config: TrainConfig, model: Model) -> SamplingSettings | None:
    """Sampling settings of the checkpoints: the recipe's, or those of the start; at the size of the run."""
    if config.settings is not None:
        return SamplingSettings.from_dict(config.settings)
    size = config.data.size
    if size is None or size in model.spec.trained_sizes:
        return model.settings
    return dataclasses.replace(model.spec.settings_for(size), size=size)
