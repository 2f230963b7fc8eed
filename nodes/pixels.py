"""IMAGE <-> pixel LATENT, and sizes."""

from comfy_api.latest import io

from ..pixeldit_core.families.pixeldit.sizes import BUCKETS, bucket
from .host.compat import searchable, show_text
from .host.pixels import ALPHA, empty_latent, to_channels, to_image, to_latent, to_mask
from .host.spec import find_spec


class PixelDiTDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTDecode",
            display_name="PixelDiT Decode",
            category="PixelDiT",
            description="Pixel latent to picture, without a VAE: for KSampler and SamplerCustomAdvanced with a "
            "pixel-space model. Rounds as the published program does.",
            inputs=[
                io.Latent.Input("samples", tooltip="Three channels (gray: one) at full size, from a pixel-space model.")
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The picture, in the 256 levels of a PNG.")],
        )
        return searchable(schema, "vae decode", "pixel space decode", "latent to image")

    @classmethod
    def execute(cls, samples: dict) -> io.NodeOutput:
        return io.NodeOutput(to_image(samples["samples"]))


class PixelDiTEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTEncode",
            display_name="PixelDiT Encode",
            category="PixelDiT",
            description="Picture to pixel latent, without a VAE and without loss: the start of image to image and of "
            "inpainting with KSampler. Transparency is dropped.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("pixels", tooltip="The picture to start from, at the size you want."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White = paint anew, black = keep. Without one all is painted."
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only for models that paint in gray: gives the picture the channels that they have.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="Pixels, for any sampler of a pixel-space model.")
            ],
        )
        return searchable(schema, "vae encode", "pixel space encode", "image to latent", "inpaint")

    @classmethod
    def execute(cls, pixels, mask=None, model=None) -> io.NodeOutput:
        spec = find_spec(model) if model is not None else None
        latent = {"samples": to_latent(to_channels(pixels, spec.params.in_channels if spec else 3))}
        if mask is not None:
            latent["noise_mask"] = to_mask(mask, pixels).movedim(-1, 1)
        if pixels.shape[-1] == 4:
            show_text(cls, f"note: {ALPHA}")
        return io.NodeOutput(latent)


def _aspects() -> dict[str, float]:
    """Labels of the trained aspects, width : height, from square to wide."""
    usual = {1.29: "4:3", 1.46: "3:2", 1.67: "5:3", 1.75: "16:9", 2.4: "21:9"}
    ratios = [round(width / height, 2) for height, width in reversed(BUCKETS[1024]) if width >= height]
    return {f"{usual[ratio]} ({ratio:g}:1)" if ratio in usual else f"{ratio:g}:1": ratio for ratio in ratios}


ASPECTS = _aspects()


class PixelDiTSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSize",
            display_name="PixelDiT Size",
            category="PixelDiT",
            description="A size that the text-to-image PixelDiT was trained on, by its aspect: width and height for "
            "PixelDiT Sampler, an empty pixel latent for KSampler.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Combo.Input(
                    "resolution",
                    options=[str(resolution) for resolution in sorted(BUCKETS, reverse=True)],
                    default="1024",
                    tooltip="As many pixels as a square of this side. 1024 is what the published model is best at; 512 "
                    "is four times as fast.",
                ),
                io.Combo.Input(
                    "aspect",
                    options=list(ASPECTS),
                    default="1:1",
                    tooltip="Longer side : shorter side. 4:3, 3:2, 16:9 and 21:9 mean the nearest trained one.",
                ),
                io.Combo.Input(
                    "orientation",
                    options=["landscape", "portrait"],
                    default="landscape",
                    tooltip="landscape = wide, portrait = tall. A few extreme aspects were trained wide only: portrait "
                    "takes the nearest tall one.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Pictures in the latent."),
            ],
            outputs=[
                io.Int.Output(display_name="width", tooltip="For the width of PixelDiT Sampler."),
                io.Int.Output(display_name="height", tooltip="For the height of PixelDiT Sampler."),
                io.Latent.Output(display_name="LATENT", tooltip="Empty pixels of that size, for KSampler."),
            ],
        )
        return searchable(schema, "resolution", "aspect ratio", "empty latent", "bucket", "width height")

    @classmethod
    def execute(cls, resolution: str, aspect: str, orientation: str, batch_size: int) -> io.NodeOutput:
        ratio = ASPECTS[aspect]
        height, width = bucket(int(resolution), ratio if orientation == "landscape" else 1 / ratio)
        show_text(cls, f"{width} x {height}")
        return io.NodeOutput(width, height, {"samples": empty_latent(batch_size, height, width)})
