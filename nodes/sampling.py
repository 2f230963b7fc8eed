"""The sampler that outputs images, and its parts for ComfyUI's own samplers."""

from comfy_api.latest import io

from ..pixeldit_core.families import CONVENTIONS
from ..pixeldit_core.settings import SETTINGS
from .host import sampling
from .host.compat import advanced, searchable, show_text
from .host.render import AS_SET, OWN, render

SOLVERS = list(sampling.SOLVERS)
SOLVER_TIP = (
    "ab2: the published solver for class models, one network call per step. flow_dpmpp_2m: the published solver for "
    "text-to-image, same cost. euler: first order, softer with few steps. heun: reuses the velocity of the previous "
    "step, same cost. heun_exact: two calls per step, most accurate with few steps."
)
TIMESHIFT_TIP = (
    "Above 1, more steps are spent at high noise, where the composition forms; larger images need more. 0 = "
    "automatic: the model's value for this size (ImageNet: 1 at 256, 2 at 512; text: 3 at 512, 4 at 1024), or the "
    "shift of ModelSamplingSD3 if connected. Try 1 to 4."
)


class PixelDiTSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSampler",
            display_name="PixelDiT Sampler",
            category="PixelDiT",
            description="Generates images in one node, straight to pixels, with the published solvers, timeshift and "
            "guidance interval, and the published settings by name. Also image to image and inpainting.",
            hidden=[io.Hidden.unique_id],
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
                    options=[AS_SET, OWN, *SETTINGS],
                    default=AS_SET,
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
                io.Combo.Input("solver", options=SOLVERS, default="ab2", tooltip=SOLVER_TIP),
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
                    step=0.01,
                    tooltip="Time at which guidance begins (0 = noise, 1 = image). 0.1 keeps compositions varied. "
                    "Steps outside the interval take half the time.",
                ),
                io.Float.Input(
                    "cfg_interval_end",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Time at which guidance ends. Try 0.9 to 1; lower softens contrast and saves time.",
                ),
                io.Int.Input(
                    "width",
                    default=256,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="A multiple of the patch size (16 for the published models). Trained sizes: 256 or 512 for "
                    "ImageNet, those of PixelDiT Size for text. A connected image is scaled and cropped to this size. "
                    "0 = the size of the image, or without one the default of the checkpoint.",
                ),
                io.Int.Input(
                    "height",
                    default=256,
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
            ],
        )
        return searchable(
            schema,
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
    def execute(
        cls, model, positive, negative=None, image=None, mask=None, trajectory_frames=0, **settings
    ) -> io.NodeOutput:
        images, used = render(model, positive, negative, image, mask, frames=trajectory_frames, **settings)
        show_text(cls, used)
        return io.NodeOutput(*images)


class PixelDiTCFGInterval(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTCFGInterval",
            display_name="PixelDiT CFG Interval",
            category="PixelDiT",
            description="Applies CFG only between two times of the flow. Outside the interval the unconditional pass "
            "is skipped, which saves time. For KSampler and SamplerCustomAdvanced with any flow model. Guiders without "
            "a single cfg value (DualCFGGuider) are not affected.",
            inputs=[
                io.Model.Input("model", tooltip="Any flow model. Replaces an earlier interval."),
                io.Float.Input(
                    "start",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 = pure noise. 0.1 keeps compositions varied. The limit itself is outside.",
                ),
                io.Float.Input(
                    "end",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1 = final image. 0.9 avoids over-sharp texture. The limit itself is outside.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model, guided inside the interval only.")],
        )
        return searchable(schema, "guidance interval", "limited interval guidance", "cfg schedule", "skip uncond")

    @classmethod
    def execute(cls, model, start: float, end: float) -> io.NodeOutput:
        return io.NodeOutput(sampling.with_interval(model, start, end))


class PixelDiTScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTScheduler",
            display_name="PixelDiT Scheduler",
            category="PixelDiT",
            description="The published time grid as SIGMAS for SamplerCustomAdvanced, with any number of steps.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="Its family determines the grid; its shift is the automatic timeshift."
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=10000,
                    tooltip="20: preview, 50: good; published: 100 for ImageNet, 50 for text.",
                ),
                io.Float.Input("timeshift", default=0.0, min=0.0, max=100.0, step=0.05, tooltip=TIMESHIFT_TIP),
                advanced(
                    io.Float.Input(
                        "denoise",
                        default=1.0,
                        min=0.01,
                        max=1.0,
                        step=0.01,
                        tooltip="Below 1, only the last part of a longer grid is used, for image to image.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "last_step",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.001,
                        tooltip="Length of the last step, before timeshift; 0 = automatic, equal to the others. A "
                        "shorter one, such as 0.01, gives cleaner texture with few steps. Not for text-to-image.",
                    )
                ),
                io.Latent.Input("latent", optional=True, tooltip="Its size determines the automatic timeshift."),
            ],
            outputs=[io.Sigmas.Output(display_name="SIGMAS", tooltip="1 = noise, 0 = image.")],
        )
        return searchable(schema, "sigmas", "timesteps", "timeshift", "flow schedule")

    @classmethod
    def execute(cls, model, steps, timeshift, denoise, last_step, latent=None) -> io.NodeOutput:
        size = tuple(latent["samples"].shape[-2:]) if latent else None
        return io.NodeOutput(1.0 - sampling.make_times(model, steps, timeshift, denoise, last_step, size))


class PixelDiTSolver(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSolver",
            display_name="PixelDiT Solver",
            category="PixelDiT",
            description="The published solvers as a SAMPLER for SamplerCustomAdvanced, for flow models.",
            inputs=[io.Combo.Input("solver", options=SOLVERS, default="ab2", tooltip=SOLVER_TIP)],
            outputs=[io.Sampler.Output(display_name="SAMPLER", tooltip="For SamplerCustomAdvanced.")],
        )
        return searchable(schema, "ksamplerselect", "adams-bashforth", "heun", "flowdpmsolver", "dpm-solver")

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        return io.NodeOutput(sampling.make_solver(solver))
