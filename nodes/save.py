"""MODEL -> checkpoint file."""

from comfy_api.latest import io

from ..pixeldit_core.checkpoints.layouts import LAYOUTS
from ..pixeldit_core.dtypes import DTYPES
from .host.compat import searchable, show_text
from .host.save import save_model

AS_IS = "as it is"
CHOICES = {AS_IS: None} | {name: DTYPES[name] for name in ("bf16", "fp16", "fp32", "fp8_e4m3fn")}


class PixelDiTSaveModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTSaveModel",
            display_name="PixelDiT Save Model",
            category="PixelDiT",
            description="Writes a PixelDiT as one .safetensors file, with its class names and settings: smaller, "
            "faster to load, LoRAs merged, or in the layout that ComfyUI's own loader takes. Never over another file.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="From PixelDiT Loader or PixelDiT LoRA, or ComfyUI's own PixelDiT."),
                io.String.Input(
                    "filename_prefix",
                    default="diffusion_models/PixelDiT",
                    tooltip="In the output folder; a number is added. What is in its diffusion_models folder shows up "
                    "in PixelDiT Loader's list after R.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="canonical",
                    tooltip="canonical: the network's own names, for everything that reads PixelDiT. comfyui: "
                    "text-to-image as ComfyUI's own loader takes it.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(CHOICES),
                    default=AS_IS,
                    tooltip="bf16: half of fp32, no visible difference. fp8_e4m3fn: a quarter, slightly different "
                    "pictures.",
                ),
                io.Boolean.Input(
                    "merge_loras",
                    default=True,
                    tooltip="Whether LoRAs on the model are written into the weights; off = the weights below.",
                ),
            ],
        )
        return searchable(schema, "save checkpoint", "export", "convert", "merge lora")

    @classmethod
    def execute(cls, model, filename_prefix: str, layout: str, dtype: str, merge_loras: bool) -> io.NodeOutput:
        path = save_model(model, filename_prefix, layout, CHOICES[dtype], merge_loras)
        show_text(cls, f"{path.name}, {path.stat().st_size / 1e6:,.1f} MB, in {path.parent}")
        return io.NodeOutput()
