"""MODEL + LoRA -> MODEL."""

from comfy_api.latest import io

from ..pixeldit_core.text import shorten_list
from .host.compat import searchable, show_text
from .host.folders import find_lora, fingerprint, list_loras
from .host.lora import add_lora

_SHOWN = 3  # names of what was left out


class PixelDiTLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTLoRA",
            display_name="PixelDiT LoRA",
            category="PixelDiT",
            description="Adds a LoRA to a PixelDiT, ours or ComfyUI's own: from PEFT, diffusers, kohya or ComfyUI, "
            "whatever its tensors are called. Tells how much of the file was applied, and refuses one of which "
            "nothing is.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="From PixelDiT Loader, or ComfyUI's own PixelDiT."),
                io.Combo.Input(
                    "lora",
                    options=list_loras(),
                    tooltip="A file in models/loras. A PEFT folder counts, too: its adapter_model.safetensors.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="1 = as trained, 0 = not at all; below 0 it is taken away.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model with the LoRA.")],
        )
        return searchable(schema, "load lora", "peft", "adapter", "fine-tune")

    @classmethod
    def fingerprint_inputs(cls, lora: str, **others) -> tuple:
        try:
            return (lora, fingerprint(find_lora(lora)), *others.values())
        except ValueError:
            return (lora, *others.values())

    @classmethod
    def execute(cls, model, lora: str, strength: float) -> io.NodeOutput:
        patched, found = add_lora(model, find_lora(lora), strength)
        text = f"{found.applied} of {found.total} modules applied, {len(found.pairs)} weights changed"
        if found.unknown:
            text += f"\nnote: left out, not in this network: {shorten_list(found.unknown, _SHOWN)}"
        show_text(cls, text)
        return io.NodeOutput(patched)
