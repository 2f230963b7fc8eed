"""Training: recipes, data, losses and an engine on accelerate (docs/training.md).

Sampling never imports it. The names below are its public ones; each module is imported when a name of it is used, so
that packages of the extra `train` are needed only for what they do.
"""

from __future__ import annotations

from ..lazy import lazy_names

_MODULES = {
    "config": (
        "AverageConfig", "BucketConfig", "DataConfig", "EngineConfig", "EvaluateConfig", "FrequencyConfig",
        "LoraConfig", "ModelConfig", "ObjectiveConfig", "OptimConfig", "RepaConfig", "SampleConfig", "TrainConfig",
    ),
    "recipe": ("read_recipe", "write_recipe"),
    "start": ("start_model",),
    "data.order": ("Draw", "GlobalBatchSampler"),
    "data.batch": ("Example", "ImageData", "Loaded", "collate"),
    "data.open": ("open_data",),
    "batches": ("BatchMaker",),
    "draws": ("Draws", "draw"),
    "loss": ("Batch", "Loss"),
    "blocks": ("apply_engine_config", "transformer_blocks"),
    "lora": ("add_lora", "write_lora"),
    "ema": ("Averages",),
    "snapshots": ("reconstruct",),
    "setup": ("Setup", "set_up"),
    "engine": ("Engine", "StepResult"),
    "report": ("describe_run", "memory_table"),
}  # fmt: skip
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
