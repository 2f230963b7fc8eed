"""Guidance that changes with the picture or with time, as patches of a MODEL."""

from comfy_api.latest import io

from .host import guidance
from .host.compat import searchable

SHAPES = ["linear", "cosine", "quadratic"]


class PixelDiTCFGRescale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTCFGRescale",
            display_name="PixelDiT CFG Rescale",
            category="PixelDiT",
            description="Brings the contrast of the guided prediction back to that of the unguided one, so that a high "
            "cfg follows the prompt without burnt colors. Exact for any flow model, which ComfyUI's RescaleCFG is "
            "not. For KSampler, SamplerCustomAdvanced and PixelDiT Sampler; costs no time.",
            inputs=[
                io.Model.Input("model", tooltip="Any flow model; replaces a rescale set before, also RescaleCFG."),
                io.Float.Input(
                    "factor",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the added contrast is taken back: 0 = none, 1 = all of it, which can look "
                    "flat. Try 0.5 to 0.8 with a cfg above 4.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model, its guidance rescaled.")],
        )
        return searchable(schema, "rescale cfg", "guidance rescale", "oversaturation", "burnt colors")

    @classmethod
    def execute(cls, model, factor: float) -> io.NodeOutput:
        return io.NodeOutput(guidance.with_rescale(model, factor))


class PixelDiTCFGSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTCFGSchedule",
            display_name="PixelDiT CFG Schedule",
            category="PixelDiT",
            description="Guidance that changes on the way: the sampler's own cfg at the noise, end_cfg at the finished "
            "picture. Strong where the composition is made, gentle on the texture. For KSampler, "
            "SamplerCustomAdvanced and PixelDiT Sampler with any flow model; goes together with CFG Interval.",
            inputs=[
                io.Model.Input("model", tooltip="Any flow model; replaces a schedule set before."),
                io.Combo.Input(
                    "shape",
                    options=SHAPES,
                    default="cosine",
                    tooltip="How it gets there. linear: evenly. cosine: stays high at first, and low at the end. "
                    "quadratic: stays high longest, falls at the end.",
                ),
                io.Float.Input(
                    "end_cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="The cfg at the finished picture; 1 = no guidance there. Try 1 to 2. Above the sampler's "
                    "cfg, guidance grows instead.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model, its guidance changing over time.")],
        )
        return searchable(schema, "cfg schedule", "dynamic cfg", "guidance schedule", "cosine cfg")

    @classmethod
    def execute(cls, model, shape: str, end_cfg: float) -> io.NodeOutput:
        return io.NodeOutput(guidance.with_schedule(model, shape, end_cfg))
