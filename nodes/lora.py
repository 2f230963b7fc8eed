"""MODEL + LoRA -> MODEL."""

from comfy_api.latest import io

from ..pixeldit_core.text import shorten_list
from .host.compat import resending, searchable, show_text
from .host.folders import find_lora, fingerprint, list_loras, missing
from .host.lora import add_lora

_SHOWN = 3  # names of ignored modules


class PixelDiTLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTLoRA",
            display_name="PixelDiT LoRA",
            category="PixelDiT",
            description="Applies a LoRA (also LoHa, LoKr, DoRA, OFT) to a PixelDiT model, loaded by this pack or by "
            "ComfyUI. Reads the key names of PEFT, diffusers, kohya and ComfyUI. Shows how much of the file was "
            "applied; rejects a LoRA in which no key matches the model.",
            inputs=[
                io.Model.Input("model", tooltip="From PixelDiT Loader, or ComfyUI's own PixelDiT."),
                io.Combo.Input(
                    "lora_name",
                    options=list_loras(),
                    tooltip="A file in models/loras. For a PEFT folder, choose its adapter_model.safetensors.",
                ),
                io.Float.Input(
                    "strength_model",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="1 = as trained, 0 = off. Negative values subtract the LoRA.",
                ),
            ],
            outputs=[io.Model.Output(display_name="MODEL", tooltip="The model with the LoRA applied.")],
        )
        return searchable(resending(schema), "load lora", "peft", "adapter", "fine-tune")

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return missing(find_lora, lora_name)

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **others) -> tuple:
        try:
            return (lora_name, fingerprint(find_lora(lora_name)), *others.values())
        except ValueError:
            return (lora_name, *others.values())

    @classmethod
    def execute(cls, model, lora_name: str, strength_model: float) -> io.NodeOutput:
        patched, found = add_lora(model, find_lora(lora_name), strength_model)
        text = f"{found.applied} of {found.total} modules applied, {found.weights} weights changed"
        if found.unknown:
            text += f"\nnote: ignored, no match in this model: {shorten_list(found.unknown, _SHOWN)}"
        return io.NodeOutput(patched, ui=show_text(cls, "\nnote: ".join((text, *found.notes))))
