"""IMAGE <-> pixel LATENT, and sizes."""

from comfy_api.latest import io

from ..pixeldit_core.families.pixeldit.sizes import BUCKETS, bucket
from .host.choices import choose, explain
from .host.compat import resending, searchable, show_text
from .host.pixels import ALPHA, empty_latent, hand_out, receive, repeat, to_channels, to_image, to_latent, to_mask
from .host.spec import find_spec


class PixelDiTDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTDecode",
            display_name="PixelDiT Decode",
            category="PixelDiT",
            description="Converts a pixel latent to an image, without a VAE: for KSampler and SamplerCustomAdvanced "
            "with a pixel-space model. Rounds exactly as the published code does.",
            inputs=[
                io.Latent.Input("samples", tooltip="3 channels (grayscale: 1) at full size, from a pixel-space model.")
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The image, in the 256 levels of a PNG.")],
        )
        return searchable(schema, "vae decode", "pixel space decode", "latent to image")

    @classmethod
    def execute(cls, samples: dict) -> io.NodeOutput:
        return io.NodeOutput(hand_out(to_image(samples["samples"])))


class PixelDiTEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTEncode",
            display_name="PixelDiT Encode",
            category="PixelDiT",
            description="Converts an image to a pixel latent, without a VAE and without loss, for image to image and "
            "inpainting with KSampler. Transparency is dropped.",
            inputs=[
                io.Image.Input("pixels", tooltip="The image to start from, at the output size."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White = regenerate, black = keep. Without a mask, everything is regenerated.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only for grayscale models: converts the image to the number of channels of the model.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="LATENT", tooltip="A pixel latent, for any sampler with a pixel-space model."
                )
            ],
        )
        return searchable(resending(schema), "vae encode", "pixel space encode", "image to latent", "inpaint")

    @classmethod
    def execute(cls, pixels, mask=None, model=None) -> io.NodeOutput:
        spec = find_spec(model) if model is not None else None
        pixels = receive(pixels, "image (pixels)")
        latent = {}
        if mask is not None:
            mask = to_mask(receive(mask, "mask"), pixels)
            pixels = repeat(pixels, max(len(pixels), len(mask)))
            latent["noise_mask"] = hand_out(mask.movedim(-1, 1))
        latent["samples"] = hand_out(to_latent(to_channels(pixels, spec.params.in_channels if spec else 3)))
        return io.NodeOutput(latent, ui=show_text(cls, f"note: {ALPHA}" if pixels.shape[-1] == 4 else ""))


def _aspects() -> dict[str, float]:
    """Labels of the trained aspect ratios, width : height, from square to wide."""
    usual = {1.29: "4:3", 1.46: "3:2", 1.67: "5:3", 1.75: "16:9", 2.4: "21:9"}
    ratios = [round(width / height, 2) for height, width in reversed(BUCKETS[1024]) if width >= height]
    return {f"{usual[ratio]} ({ratio:g}:1)" if ratio in usual else f"{ratio:g}:1": ratio for ratio in ratios}


ASPECTS = _aspects()
RESOLUTIONS = [str(resolution) for resolution in sorted(BUCKETS, reverse=True)]
ORIENTATIONS = ["landscape", "portrait"]


class PixelDiTSize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSize",
            display_name="PixelDiT Size",
            category="PixelDiT",
            description="A size that the text-to-image PixelDiT was trained on, by aspect ratio: width and height for "
            "PixelDiT Sampler, an empty pixel latent for KSampler.",
            inputs=[
                io.Combo.Input(
                    "resolution",
                    options=RESOLUTIONS,
                    default="1024",
                    tooltip="About as many pixels as a square with this side. The published model is best at 1024; 512 "
                    "is about four times as fast.",
                ),
                io.Combo.Input(
                    "aspect_ratio",
                    options=list(ASPECTS),
                    default="1:1",
                    tooltip="Longer side : shorter side. 4:3, 3:2, 16:9 and 21:9 stand for the nearest trained ratio.",
                ),
                io.Combo.Input(
                    "orientation",
                    options=ORIENTATIONS,
                    default="landscape",
                    tooltip="landscape = wide, portrait = tall. A few extreme ratios were trained as landscape only: "
                    "portrait then takes the nearest one that was trained.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Number of images in the latent."),
            ],
            outputs=[
                io.Int.Output(display_name="width", tooltip="Width for PixelDiT Sampler."),
                io.Int.Output(display_name="height", tooltip="Height for PixelDiT Sampler."),
                io.Latent.Output(display_name="LATENT", tooltip="An empty pixel latent of this size, for KSampler."),
            ],
        )
        return searchable(resending(schema), "resolution", "aspect ratio", "empty latent", "bucket", "width height")

    @classmethod
    def validate_inputs(cls, resolution: str | int | None = None) -> bool | str:
        return True if resolution is None else explain("resolution", resolution, RESOLUTIONS) or True

    @classmethod
    def execute(cls, resolution: str, aspect_ratio: str, orientation: str, batch_size: int) -> io.NodeOutput:
        resolution = choose("resolution", resolution, RESOLUTIONS)
        ratio = ASPECTS[choose("aspect_ratio", aspect_ratio, ASPECTS)]
        landscape = choose("orientation", orientation, ORIENTATIONS) == "landscape"
        height, width = bucket(int(resolution), ratio if landscape else 1 / ratio)
        outputs = (width, height, {"samples": empty_latent(batch_size, height, width)})
        return io.NodeOutput(*outputs, ui=show_text(cls, f"{width} x {height}"))
