"""IMAGE <-> pixel LATENT."""

from comfy_api.latest import io

from .host.compat import searchable
from .host.pixels import to_image, to_latent


class PixelDiTDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTDecode",
            display_name="PixelDiT Decode",
            category="PixelDiT",
            description="Pixel latent to picture, without a VAE: for KSampler and SamplerCustomAdvanced with a "
            "pixel-space model. Rounds as the published program does.",
            inputs=[io.Latent.Input("samples", tooltip="Three channels at full size, from a pixel-space model.")],
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
            inputs=[
                io.Image.Input("pixels", tooltip="The picture to start from, at the size you want."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White = paint anew, black = keep. Without one all is painted."
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="LATENT", tooltip="Pixels, for any sampler of a pixel-space model.")
            ],
        )
        return searchable(schema, "vae encode", "pixel space encode", "image to latent", "inpaint")

    @classmethod
    def execute(cls, pixels, mask=None) -> io.NodeOutput:
        latent = {"samples": to_latent(pixels)}
        if mask is not None:
            latent["noise_mask"] = mask.reshape(-1, 1, mask.shape[-2], mask.shape[-1])
        return io.NodeOutput(latent)
