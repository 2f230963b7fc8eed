"""The sampler that outputs images."""

from comfy_api.latest import io

from ..pixeldit_core.flow.convention import CONVENTIONS
from ..pixeldit_core.flow.solvers import SOLVERS
from ..pixeldit_core.settings import SETTINGS
from .custom_sampling import SOLVER_TIP, TIMESHIFT_TIP
from .host.compat import advanced, resending, searchable, show_text
from .host.render import render
from .host.request import CHECKPOINT, CUSTOM, Request


class PixelDiTSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSampler",
            display_name="PixelDiT Sampler",
            category="PixelDiT",
            description="Generates images in one node, straight to pixels, with the published solvers, timeshift and "
            "guidance interval, and the published settings by name. Also image to image and inpainting.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="From PixelDiT Loader; ComfyUI's own PixelDiT and other pixel-space flow models work too.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="What to generate: PixelDiT Class Label or PixelDiT Text Prompt."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What CFG steers away from: null of PixelDiT Class Label, or negative of PixelDiT Text "
                    "Prompt. If not connected, a class-conditional model uses its null class.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed and settings give the same image.",
                ),
                io.Combo.Input(
                    "settings",
                    options=[CUSTOM, CHECKPOINT, *SETTINGS],
                    default=CUSTOM,
                    tooltip="custom: the values below. checkpoint default: the settings stored in the checkpoint. "
                    "Others: published settings. All but custom replace steps, solver, cfg, timeshift and interval; "
                    "the node shows the values used.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=10000,
                    tooltip="More steps give cleaner detail and take more time. 20: preview, 50: good; published: 100 "
                    "for ImageNet, 50 for text (25 fast).",
                ),
                io.Combo.Input("solver", options=list(SOLVERS), default="ab2", tooltip=SOLVER_TIP),
                io.Float.Input(
                    "cfg",
                    default=2.75,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How strongly the class or prompt is followed. 1: no guidance (twice as fast, vague), 2 to "
                    "4: good, above 6: over-saturated.",
                ),
                io.Float.Input("timeshift", default=0.0, min=0.0, max=100.0, step=0.05, tooltip=TIMESHIFT_TIP),
                io.Float.Input(
                    "cfg_interval_start",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Time at which guidance begins (0 = noise, 1 = image). 0.1 keeps compositions varied. "
                    "Steps outside the interval take half the time.",
                ),
                io.Float.Input(
                    "cfg_interval_end",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.005,
                    tooltip="Time at which guidance ends. Try 0.9 to 1; lower softens contrast and saves time.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="A multiple of the patch size (16 for the published models). Trained sizes: 256 or 512 for "
                    "ImageNet, those of PixelDiT Size for text. A connected image is scaled and cropped to this size. "
                    "0 = the size of the image, or without one the default of the checkpoint.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="See width. 0 = the size of the image, or without one the default of the checkpoint.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="Number of images; a list of classes gives at least one image per class.",
                ),
                advanced(
                    io.Float.Input(
                        "denoise",
                        default=1.0,
                        min=0.01,
                        max=1.0,
                        step=0.01,
                        tooltip="With an image: how much of it is regenerated. 0.3: small changes, 0.6: large changes, "
                        "1: nothing is kept. Without an image, leave it at 1.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "convention",
                        options=list(CONVENTIONS),
                        default="standard",
                        optional=True,
                        tooltip="standard: correct ODE sampling. reference: reproduces the original sampler exactly, "
                        "including its quirks. Both are identical for the official PixelDiT models.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "trajectory_frames",
                        optional=True,
                        default=0,
                        min=0,
                        max=1000,
                        tooltip="Number of frames for the outputs states and estimates, spaced evenly over the steps; "
                        "20 to 50 for an animation. 0 = off: both outputs then return the final images.",
                    )
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="An image to start from; scaled to cover width x height and center-cropped.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="With an image: white = regenerate, black = keep exactly. Soft edges are blended.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The generated images; no decoding needed."),
                io.Image.Output(
                    display_name="states",
                    tooltip="The sampling trajectory, from noise to image. Each frame shows the whole batch.",
                ),
                io.Image.Output(
                    display_name="estimates",
                    tooltip="The final image as the model predicts it at each of these times.",
                ),
                io.String.Output(
                    display_name="settings",
                    tooltip="The settings that were used, as one line of text: for Preview Any, file names and "
                    "metadata.",
                ),
            ],
        )
        return searchable(
            resending(schema),
            "animation",
            "trajectory",
            "sampling process",
            "ksampler",
            "text to image",
            "flow sampler",
            "cfg interval",
            "inpaint",
        )

    @classmethod
    def execute(cls, model, positive, negative=None, image=None, mask=None, **widgets) -> io.NodeOutput:
        result = render(model, positive, negative, image, mask, Request(**widgets))
        outputs = (result.images, result.states, result.estimates, result.settings)
        return io.NodeOutput(*outputs, ui=show_text(cls, result.text))
