"""Classes and prompts -> CONDITIONING."""

from comfy_api.latest import io

from ..pixeldit_core.labels import find_class, numbered, parse_classes
from ..pixeldit_core.settings import NEGATIVE_PROMPT
from ..pixeldit_core.text import shorten_list
from .host import text
from .host.compat import resending, searchable, show_text
from .host.conditions import class_conditioning
from .host.labels import combo_options, require_classes


class PixelDiTClassLabel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTClassLabel",
            display_name="PixelDiT Class Label",
            category="PixelDiT",
            description="Class conditioning: one class, or a list for one image each; also outputs the null class for "
            "CFG.",
            inputs=[
                io.Model.Input("model", tooltip="The model determines which classes are available."),
                io.Combo.Input(
                    "class_name",
                    options=combo_options(),
                    default=combo_options()[0],
                    tooltip="Type a number or part of a name to search. The list follows the connected checkpoint.",
                ),
                io.String.Input(
                    "classes",
                    default="",
                    tooltip='Several classes, one image each, such as "1, 207, 250-253", or names. If this is not '
                    "empty, class_name is ignored.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The selected class or classes."),
                io.Conditioning.Output(display_name="null", tooltip="The null class; connect it to negative."),
            ],
        )
        return searchable(resending(schema), "imagenet class", "label", "class conditioning", "class id")

    @classmethod
    def validate_inputs(cls, class_name: str | int | None = None) -> bool:
        return True  # the list depends on the model; `execute` checks against the right one

    @classmethod
    def execute(cls, model, class_name: str, classes: str) -> io.NodeOutput:
        spec = require_classes(model)
        count, names = spec.params.num_classes, spec.class_names
        listed = classes.strip()
        chosen = parse_classes(classes, count, names) if listed else [find_class(class_name, count, names)]
        shown = numbered(names) if names else [str(index) for index in range(count)]
        shown.append(f"{count}: null class")
        text = f"{shorten_list((shown[index] for index in chosen), 8)} (of {count} classes)"
        outputs = (class_conditioning(chosen, count), class_conditioning([count], count))
        return io.NodeOutput(*outputs, ui=show_text(cls, text))


class PixelDiTTextPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTTextPrompt",
            display_name="PixelDiT Text Prompt",
            category="PixelDiT",
            description="Text conditioning for a text-to-image PixelDiT or PixelHDM: prompt and negative prompt in one "
            "node, encoded the way the model was trained. Shows a note if a prompt is longer than the model can read.",
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="From Load CLIP. PixelDiT: gemma_2_2b_it_elm, type pixeldit (ComfyUI 0.23 or newer). "
                    "PixelHDM: Qwen3-0.6B, any type.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What to generate, in plain sentences. PixelDiT reads up to 299 tokens, about 200 words; "
                    "PixelHDM up to 511.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default=NEGATIVE_PROMPT,
                    tooltip="What CFG steers away from. The default is the published negative prompt; it may be empty.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The encoded prompt."),
                io.Conditioning.Output(display_name="negative", tooltip="The encoded negative prompt."),
            ],
        )
        return searchable(
            resending(schema), "clip text encode", "text to image", "prompt", "negative prompt", "gemma", "qwen"
        )

    @classmethod
    def execute(cls, clip, prompt: str, negative_prompt: str) -> io.NodeOutput:
        prompts = {"prompt": prompt, "negative_prompt": negative_prompt}
        encoded = [text.encode(clip, words) for words in prompts.values()]
        cut = [f"{name}: {note}" for name, words in prompts.items() if (note := text.unread(clip, words))]
        return io.NodeOutput(*encoded, ui=show_text(cls, "\n".join(cut)))
