"""The node that edits an image by its class or text."""

from comfy_api.latest import io

from .host.compat import advanced, resending, searchable, show_text
from .host.edit import EditSettings
from .host.edit_image import edit_image


class PixelDiTEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTEdit",
            display_name="PixelDiT Edit",
            category="PixelDiT",
            description="Edits an image by its class or text with FlowEdit: another subject, with more of the layout, "
            "background and colors kept than image to image does. No mask, no inversion, no VAE.",
            inputs=[
                io.Model.Input("model", tooltip="From PixelDiT Loader; class-conditional or text-to-image."),
                io.Image.Input("image", tooltip="The image to edit, at its own size; best at a trained size."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="What the image shall become: PixelDiT Class Label, or PixelDiT Text Prompt.",
                ),
                io.Conditioning.Input(
                    "source",
                    optional=True,
                    tooltip="What the image is. If not connected, a class-conditional model treats it as unknown; a "
                    "text-to-image model needs a description of the image.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What CFG steers away from. If not connected, a class-conditional model uses its null "
                    "class.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed gives another variant of the edit.",
                ),
                io.Int.Input(
                    "steps",
                    default=28,
                    min=1,
                    max=10000,
                    tooltip="Each step calls the network for the target and for the source. 20 to 50.",
                ),
                io.Float.Input(
                    "cfg",
                    default=3.0,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How strongly the target is followed. 2 to 5.",
                ),
                io.Float.Input(
                    "start",
                    default=0.15,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Time at which the edit begins (0 = noise, 1 = image): how much may change. 0.35: colors "
                    "and texture, 0.2: shapes, 0.1: another subject.",
                ),
                advanced(
                    io.Float.Input(
                        "end",
                        default=0.95,
                        min=0.0,
                        max=1.0,
                        step=0.005,
                        tooltip="Time at which the edit ends. Lower keeps the fine texture of the image.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "source_cfg",
                        default=1.0,
                        min=0.0,
                        max=100.0,
                        step=0.05,
                        tooltip="How strongly the source is followed. 1: no guidance; higher removes more of it.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "strength",
                        default=1.0,
                        min=0.0,
                        max=10.0,
                        step=0.05,
                        tooltip="Multiplies each step of the edit. Below 1: part of the way; above 1: exaggerated.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "localized",
                        default=True,
                        tooltip="on: the edit is weaker where source and target hardly differ, which keeps the "
                        "background. off: the whole image may change.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "averages",
                        default=1,
                        min=1,
                        max=64,
                        tooltip="Noises that each step is averaged over: smoother edits, this many times the time.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "final_steps",
                        default=0,
                        min=0,
                        max=1000,
                        tooltip="Sampling steps of the target after the edit, for cleaner texture; they change the "
                        "whole image a little. 0 = off.",
                    )
                ),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The edited image.")],
        )
        return searchable(resending(schema), "flowedit", "image editing", "prompt to prompt", "inversion-free")

    @classmethod
    def execute(cls, model, image, positive, source=None, negative=None, **widgets) -> io.NodeOutput:
        edited, text = edit_image(model, image, positive, source, negative, EditSettings(**widgets))
        return io.NodeOutput(edited, ui=show_text(cls, text))
