"""The sampler that gives pixels, and its parts for ComfyUI's own samplers."""

from comfy_api.latest import io

from ..pixeldit_core.families import CONVENTIONS
from ..pixeldit_core.flow.solvers import SOLVERS
from ..pixeldit_core.settings import SETTINGS
from .host.compat import advanced, searchable, show_text
from .host.guidance import with_interval
from .host.render import render
from .host.request import AS_SET, OWN, Request
from .host.solver import make_solver
from .host.spec import find_spec
from .host.times import auto_timeshift, find_convention, make_times

SOLVER_TIP = (
    "ab2: the published one for classes, one network call per step, best for its cost. flow_dpmpp_2m: the published "
    "one for text-to-image, costs as much. euler: plain, softer at few steps. heun: reuses the slope of the step "
    "before, costs as much. heun_exact: twice the calls, most exact at few steps."
)
TIMESHIFT_TIP = (
    "Above 1, more of the steps go to the noisy beginning, where the composition is made; larger pictures want "
    "more. 0 = automatic: the model's own for this size (ImageNet: 1 at 256, 2 at 512; text: 3 at 512, 4 at 1024), or "
    "ModelSamplingSD3's if there is one. Try 1 to 4."
)


class PixelDiTSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSampler",
            display_name="PixelDiT Sampler",
            category="PixelDiT",
            description="Noise to picture in one node, straight to pixels: the published solver, timeshift and "
            "guidance interval, and the published settings by name. Also image to image and inpainting.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="From PixelDiT Loader; ComfyUI's own PixelDiT and other pixel-space flow models work too.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="What to paint: PixelDiT Class Label or PixelDiT Text Prompt."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What guidance leads away from: the 'null' of PixelDiT Class Label, the 'negative' of "
                    "PixelDiT Text Prompt. Left open, a class-conditional model uses its own 'no class'.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed and settings give the same picture.",
                ),
                io.Combo.Input(
                    "settings",
                    options=[AS_SET, OWN, *SETTINGS],
                    default=AS_SET,
                    tooltip="Published settings by name: they take the place of steps, solver, cfg, timeshift and the "
                    "interval below. The node shows the values it used.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=10000,
                    tooltip="More steps, cleaner detail, more time. 20 for a look, 50 good; published: 100 for "
                    "ImageNet, 50 for text (25 fast).",
                ),
                io.Combo.Input("solver", options=list(SOLVERS), default="ab2", tooltip=SOLVER_TIP),
                io.Float.Input(
                    "cfg",
                    default=2.75,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How firmly class or prompt are followed. 1 = no guidance (twice as fast, vague), 2 to 4 "
                    "good, above 6 over-saturated.",
                ),
                io.Float.Input("timeshift", default=0.0, min=0.0, max=100.0, step=0.05, tooltip=TIMESHIFT_TIP),
                io.Float.Input(
                    "cfg_interval_start",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Guidance begins here (0 = noise, 1 = finished picture). 0.1 keeps variety in the "
                    "composition; outside of the interval a step costs half.",
                ),
                io.Float.Input(
                    "cfg_interval_end",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Guidance ends here. 0.9 to 1.0; lower gives softer contrast and saves time.",
                ),
                io.Int.Input(
                    "width",
                    default=256,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="A multiple of the model's patch (16 for the published models). Trained: 256 or 512 for "
                    "ImageNet, the sizes of PixelDiT Size for text. With an image, it is fitted to this size. 0 = the "
                    "image's own size, without an image the checkpoint's.",
                ),
                io.Int.Input(
                    "height",
                    default=256,
                    min=0,
                    max=16384,
                    step=8,
                    tooltip="As width. 0 = the image's own size, without an image the checkpoint's.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=4096,
                    tooltip="Number of pictures; at least one is made for each class of a list.",
                ),
                advanced(
                    io.Float.Input(
                        "denoise",
                        default=1.0,
                        min=0.01,
                        max=1.0,
                        step=0.01,
                        tooltip="With an image: how much of it is made anew. 0.3 touches it up, 0.6 repaints, 1 keeps "
                        "nothing. Leave at 1 without an image.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "convention",
                        options=list(CONVENTIONS),
                        default="standard",
                        optional=True,
                        tooltip="house = the correct mathematics. published = exactly as the authors' program walks, "
                        "mistakes included, to reproduce its pictures. The same for the official PixelDiT.",
                    )
                ),
                advanced(
                    io.Int.Input(
                        "frames",
                        optional=True,
                        default=0,
                        min=0,
                        max=1000,
                        tooltip="Frames of the process for the outputs states and estimates, evenly over the steps: "
                        "20 to 50 make an animation. 0 = none, those outputs then give the finished pictures.",
                    )
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture to start from; scaled to cover width x height and cropped around its center.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="With an image: white = paint anew, black = keep, exactly. A soft edge blends.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="Finished pictures; nothing is left to decode."),
                io.Image.Output(
                    display_name="states",
                    tooltip="With frames: the picture on its way, from the noise. One frame shows the whole batch.",
                ),
                io.Image.Output(
                    display_name="estimates",
                    tooltip="With frames: the finished picture as the model foresaw it at each of these moments.",
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
    def execute(cls, model, positive, negative=None, image=None, mask=None, **settings) -> io.NodeOutput:
        result = render(model, positive, negative, image, mask, Request(**settings))
        show_text(cls, result.text)
        return io.NodeOutput(result.images, result.states, result.estimates)


class PixelDiTCFGInterval(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTCFGInterval",
            display_name="PixelDiT CFG Interval",
            category="PixelDiT",
            description="Guidance only between two times of the flow; outside, the second pass of the network is not "
            "done, which saves time. For KSampler and SamplerCustomAdvanced with any flow model. Guiders without a "
            "single cfg value (DualCFGGuider) are not affected.",
            inputs=[
                io.Model.Input("model", tooltip="Any flow model; replaces an interval set before."),
                io.Float.Input(
                    "start",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 = pure noise. 0.1 leaves the composition free and varied. The limit itself is outside.",
                ),
                io.Float.Input(
                    "end",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="1 = finished picture. 0.9 avoids over-sharp texture. The limit itself is outside.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model, guided inside of the interval only.")],
        )
        return searchable(schema, "guidance interval", "limited interval guidance", "cfg schedule", "skip uncond")

    @classmethod
    def execute(cls, model, start: float, end: float) -> io.NodeOutput:
        return io.NodeOutput(with_interval(model, start, end))


class PixelDiTScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTScheduler",
            display_name="PixelDiT Scheduler",
            category="PixelDiT",
            description="The published time grid as SIGMAS for SamplerCustomAdvanced, for any number of steps.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="Its family decides the grid, and its shift is the automatic timeshift."
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=10000,
                    tooltip="20 for a look, 50 good; published: 100 for ImageNet, 50 for text.",
                ),
                io.Float.Input("timeshift", default=0.0, min=0.0, max=100.0, step=0.05, tooltip=TIMESHIFT_TIP),
                advanced(
                    io.Float.Input(
                        "denoise",
                        default=1.0,
                        min=0.01,
                        max=1.0,
                        step=0.01,
                        tooltip="Below 1 only the last part of a longer grid is walked, for image to image.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "last_step",
                        default=0.0,
                        min=0.0,
                        max=1.0,
                        step=0.001,
                        tooltip="Length of the last step before the shift; 0 = automatic, as long as the others. "
                        "Shorter, such as 0.01, cleans up fine texture at few steps. Not for text-to-image.",
                    )
                ),
                io.Latent.Input("latent", optional=True, tooltip="The automatic timeshift looks at its size."),
            ],
            outputs=[io.Sigmas.Output(display_name="SIGMAS", tooltip="1 = noise, 0 = picture.")],
        )
        return searchable(schema, "sigmas", "timesteps", "timeshift", "flow schedule")

    @classmethod
    def execute(cls, model, steps, timeshift, denoise, last_step, latent=None) -> io.NodeOutput:
        spec, size = find_spec(model), tuple(latent["samples"].shape[-2:]) if latent else None
        timeshift = timeshift or auto_timeshift(model, spec, size)
        return io.NodeOutput(1.0 - make_times(spec, find_convention(spec), steps, timeshift, denoise, last_step))


class PixelDiTSolver(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSolver",
            display_name="PixelDiT Solver",
            category="PixelDiT",
            description="The published solvers as SAMPLER for SamplerCustomAdvanced. For flow models.",
            inputs=[io.Combo.Input("solver", options=list(SOLVERS), default="ab2", tooltip=SOLVER_TIP)],
            outputs=[io.Sampler.Output(display_name="SAMPLER", tooltip="For SamplerCustomAdvanced.")],
        )
        return searchable(schema, "ksamplerselect", "adams-bashforth", "heun", "flowdpmsolver", "dpm-solver")

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        return io.NodeOutput(make_solver(solver))
