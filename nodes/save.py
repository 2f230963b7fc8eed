"""MODEL -> checkpoint file."""

from comfy_api.latest import io

from ..pixeldit_core.checkpoints.layouts import LAYOUTS
from ..pixeldit_core.dtypes import DTYPES
from .host.choices import choose
from .host.compat import advanced, resending, searchable, show_text
from .host.save import save_model

UNCHANGED = "unchanged"
CHOICES = {UNCHANGED: None} | {name: DTYPES[name] for name in ("bf16", "fp16", "fp32", "fp8_e4m3fn")}


class PixelDiTSaveModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSaveModel",
            display_name="PixelDiT Save Model",
            category="PixelDiT",
            description="Saves a PixelDiT model as one .safetensors file with its class names and settings: smaller, "
            "faster to load, with LoRAs merged, or in the layout of ComfyUI's own loader. Never overwrites a file.",
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="From PixelDiT Loader or PixelDiT LoRA, or ComfyUI's own PixelDiT."),
                io.String.Input(
                    "filename_prefix",
                    default="diffusion_models/PixelDiT",
                    tooltip="Path in the output folder; a number is added. Files in output/diffusion_models appear in "
                    "PixelDiT Loader after you press R.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="canonical",
                    tooltip="canonical: the original key names, for every program that reads PixelDiT. comfyui: "
                    "the key names of ComfyUI's own PixelDiT.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(CHOICES),
                    default=UNCHANGED,
                    tooltip="unchanged: as loaded. bf16: half the size of fp32, no visible difference. fp8_e4m3fn: a "
                    "quarter of it, slightly different images.",
                ),
                io.Boolean.Input(
                    "merge_loras",
                    default=True,
                    tooltip="on: LoRAs are merged into the saved weights. off: the weights are saved without them.",
                ),
                advanced(
                    io.Boolean.Input(
                        "with_encoder",
                        default=True,
                        optional=True,
                        tooltip="PixelDiT2 only. on: the file contains the frozen encoder and loads without another "
                        "(DINOv3 License, if you share it). off: smaller; the encoder must be a file of its own.",
                    )
                ),
            ],
        )
        return searchable(resending(schema), "save checkpoint", "export", "convert", "merge lora")

    @classmethod
    def execute(
        cls,
        model,
        filename_prefix: str,
        layout: str,
        weight_dtype: str,
        merge_loras: bool,
        with_encoder: bool = True,
    ) -> io.NodeOutput:
        layout, weight_dtype = choose("layout", layout, LAYOUTS), choose("weight_dtype", weight_dtype, CHOICES)
        path = save_model(model, filename_prefix, layout, CHOICES[weight_dtype], merge_loras, with_encoder)
        text = f"{path.name}, {path.stat().st_size / 1e6:,.1f} MB, in {path.parent}"
        return io.NodeOutput(ui=show_text(cls, text))
