"""Guidance as patches of a MODEL: on an interval, rescaled, changing over time."""

from comfy_api.latest import io

from .host import guidance
from .host.compat import searchable

CURVES = ["linear", "cosine", "quadratic"]


class PixelDiTCFGInterval(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTCFGInterval",
            display_name="PixelDiT CFG Interval",
            category="PixelDiT",
            description="Applies CFG only between two times of the flow. Outside the interval the unconditional pass "
            "is skipped, which saves time, with CFG++ samplers, too. For KSampler and SamplerCustomAdvanced with any "
            "flow model. Guiders without a single cfg value (DualCFGGuider) are not affected.",
            inputs=[
                io.Model.Input("model", tooltip="Any flow model. Replaces an earlier interval."),
                io.Float.Input(
                    "start",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="0 = pure noise. 0.1 keeps compositions varied. The limit itself is outside.",
                ),
                io.Float.Input(
                    "end",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="1 = final image. 0.9 avoids over-sharp texture. The limit itself is outside.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model, guided inside the interval only.")],
        )
        return searchable(schema, "guidance interval", "limited interval guidance", "cfg schedule", "skip uncond")

    @classmethod
    def execute(cls, model, start: float, end: float) -> io.NodeOutput:
        return io.NodeOutput(guidance.with_interval(model, start, end))


class PixelDiTCFGRescale(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTCFGRescale",
            display_name="PixelDiT CFG Rescale",
            category="PixelDiT",
            description="Rescales the guided prediction to the contrast (std) of the conditional one, so that a high "
            "cfg does not over-saturate. Correct for any flow model, which ComfyUI's RescaleCFG is not. For KSampler, "
            "SamplerCustomAdvanced and PixelDiT Sampler; costs no extra time.",
            inputs=[
                io.Model.Input("model", tooltip="Any flow model. Replaces an earlier rescale, including RescaleCFG."),
                io.Float.Input(
                    "factor",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How strongly the contrast is rescaled: 0 = off, 1 = fully, which can look flat. Try 0.5 "
                    "to 0.8 with a cfg above 4.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model with rescaled guidance.")],
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
            description="Changes cfg during sampling, from the sampler's cfg at the start (noise) to end_cfg at the "
            "end (image): strong guidance for the composition, weak for the texture. For KSampler, "
            "SamplerCustomAdvanced and PixelDiT Sampler with any flow model; can be combined with CFG Interval.",
            inputs=[
                io.Model.Input("model", tooltip="Any flow model. Replaces an earlier schedule."),
                io.Combo.Input(
                    "curve",
                    options=CURVES,
                    default="cosine",
                    tooltip="How cfg changes over time. linear: at a constant rate. cosine: slowly at both ends, "
                    "fastest in the middle. quadratic: slowly at first, fastest at the end.",
                ),
                io.Float.Input(
                    "end_cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="The cfg at the end of sampling; 1 = no guidance there. Try 1 to 2. If it is above the "
                    "sampler's cfg, guidance increases instead.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model with guidance that changes over time.")],
        )
        return searchable(schema, "cfg schedule", "dynamic cfg", "guidance schedule", "cosine cfg")

    @classmethod
    def execute(cls, model, curve: str, end_cfg: float) -> io.NodeOutput:
        return io.NodeOutput(guidance.with_schedule(model, curve, end_cfg))
