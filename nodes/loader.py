"""Checkpoint -> MODEL."""

from comfy_api.latest import io

from ..pixeldit_core.spec import ModelSpec
from .host.choices import choose
from .host.compat import advanced, resending, searchable, show_text
from .host.encoders import AUTO, find_encoder, fingerprint_encoder, list_encoders
from .host.folders import find_checkpoint, fingerprint, list_checkpoints, missing
from .host.load import WEIGHT_DTYPES, load_model
from .host.spec import find_spec

WEIGHTS = ["auto", "ema", "raw"]


class PixelDiTLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTLoader",
            display_name="PixelDiT Loader",
            category="PixelDiT",
            description="Loads a PixelDiT checkpoint, class-conditional or text-to-image, or one of the other families "
            "(PixelDiT2, x-prediction, PixelHDM), as a MODEL. Family and sizes are detected from content; unsupported "
            "files are rejected with their actual type. Works with KSampler, LoRA and all other model nodes.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=list_checkpoints(),
                    tooltip="A file in models/diffusion_models or models/pixeldit (.safetensors, .ckpt, .pth, .pt), "
                    "or a diffusers folder there. pixeldit-emoji-96 and xpred-digits-28 are bundled models.",
                ),
                advanced(
                    io.Combo.Input(
                        "weights",
                        options=WEIGHTS,
                        default="auto",
                        tooltip="Which weights to use if a training checkpoint holds both. auto = those behind the "
                        "published results: ema (averaged); raw for the official text-to-image model.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(WEIGHT_DTYPES),
                        default="default",
                        tooltip="default = the best one for your GPU (usually bf16). fp32: exact, twice the memory. "
                        "fp16: for GPUs without bf16. fp8: half the memory of bf16, slightly different images.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "encoder",
                        options=list_encoders(),
                        default=AUTO,
                        optional=True,
                        tooltip="PixelDiT2 only: the frozen DINOv3 that it looks through. auto = the one inside of the "
                        "checkpoint, else the only one that fits beside it or in models/clip_vision, diffusion_models "
                        "or pixeldit. none = no grounding: lower quality.",
                    )
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="A model that samples pixels directly: no VAE.")],
        )
        return searchable(
            resending(schema), "load pixeldit", "imagenet", "text to image", "class to image", "checkpoint"
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None, encoder: str | None = None) -> bool | str:
        found = missing(find_checkpoint, checkpoint)
        return missing(find_encoder, encoder) if found is True else found

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, encoder: str = AUTO, **others) -> tuple:
        changing: list[tuple] = [(checkpoint, encoder, *others.values())]
        try:
            path = find_checkpoint(checkpoint)
            changing.append(fingerprint(path))
            changing.append(fingerprint_encoder(path, encoder))
        except ValueError:  # executing the node explains it
            pass
        return tuple(changing)

    @classmethod
    def execute(cls, checkpoint: str, weights: str, weight_dtype: str, encoder: str = AUTO) -> io.NodeOutput:
        weight_dtype, weights = choose("weight_dtype", weight_dtype, WEIGHT_DTYPES), choose("weights", weights, WEIGHTS)
        model = load_model(find_checkpoint(checkpoint), weights, weight_dtype, find_encoder(encoder))
        return io.NodeOutput(model, ui=show_text(cls, describe(find_spec(model), model.model.loaded)))


def describe(spec: ModelSpec, loaded: str) -> str:
    """What was loaded, and the recommended settings: the checkpoint's, or the published ones for each size."""
    params = spec.params
    if spec.family.condition == "class":
        kind = f"{params.num_classes} classes"
    else:
        kind = f"text of {params.txt_max_length} tokens, {params.txt_embed_dim} wide"
    lines = [f"{spec.family.title}, {kind}, {spec.family.summary(params)}"]
    for settings in dict.fromkeys(map(spec.settings_for, spec.trained_sizes)):
        place = f"at {settings.size[1]} x {settings.size[0]}" if settings.size else "recommended"
        start, end = settings.cfg_interval
        lines.append(
            f"{place}: {settings.steps} steps {settings.solver}, cfg {settings.cfg:g}, "
            f"timeshift {settings.timeshift:g}, interval {start:g} to {end:g}"
        )
    return "\n".join([*lines, *filter(None, [loaded])])
