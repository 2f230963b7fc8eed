"""The parts of sampling for SamplerCustomAdvanced: SIGMAS and SAMPLER."""

from comfy_api.latest import io

from ..pixeldit_core.flow.solvers import SOLVERS
from .host.choices import choose
from .host.compat import advanced, searchable
from .host.solver import make_solver
from .host.spec import find_spec
from .host.times import auto_timeshift, find_convention, make_times

SOLVER_TIP = (
    "ab2: the published solver for class models, one network call per step. flow_dpmpp_2m: the published solver for "
    "text-to-image, same cost. euler: first order, softer with few steps. heun: reuses the velocity of the previous "
    "step, same cost. heun_exact: two calls per step, most accurate with few steps."
)
TIMESHIFT_TIP = (
    "Above 1, more steps are spent at high noise, where the composition forms; larger images need more. 0 = "
    "automatic: the model's value for this size (ImageNet: 1 at 256, 2 at 512; text: 3 at 512, 4 at 1024), or the "
    "shift of a ModelSampling node if connected. Try 1 to 4."
)


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
            description="The published solvers as a SAMPLER for SamplerCustomAdvanced, for flow models.",
            inputs=[io.Combo.Input("solver", options=list(SOLVERS), default="ab2", tooltip=SOLVER_TIP)],
            outputs=[io.Sampler.Output(display_name="SAMPLER", tooltip="For SamplerCustomAdvanced.")],
        )
        return searchable(schema, "ksamplerselect", "adams-bashforth", "heun", "flowdpmsolver", "dpm-solver")

    @classmethod
    def execute(cls, solver: str) -> io.NodeOutput:
        return io.NodeOutput(make_solver(choose("solver", solver, SOLVERS)))
