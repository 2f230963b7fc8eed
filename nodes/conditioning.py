"""Classes and prompts -> CONDITIONING."""

import torch
from comfy_api.latest import io

from ..pixeldit_core.labels import find_class, numbered, parse_classes
from ..pixeldit_core.settings import NEGATIVE_PROMPT
from ..pixeldit_core.text import shorten_list
from .host import text
from .host.compat import searchable, show_text
from .host.conditions import CLASS
from .host.labels import combo_options, require_classes


class PixelDiTClassLabel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTClassLabel",
            display_name="PixelDiT Class Label",
            category="PixelDiT",
            description="What a class-conditional PixelDiT shall paint: one class from the list, or a list of classes "
            "for one picture each. Also gives the 'no class' that guidance needs.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The model decides which classes there are."),
                io.Combo.Input(
                    "class_name",
                    options=combo_options(),
                    default=combo_options()[0],
                    tooltip="Type a number or a part of a name to search. The list follows the connected checkpoint.",
                ),
                io.String.Input(
                    "classes",
                    default="",
                    tooltip='Several classes, one picture each, such as "1, 207, 250-253" or names. When it is not '
                    "empty, the list above does not count.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The chosen class or classes."),
                io.Conditioning.Output(display_name="null", tooltip="No class; connect it as the negative."),
            ],
        )
        return searchable(schema, "imagenet class", "label", "class conditioning", "class id")

    @classmethod
    def validate_inputs(cls, class_name: str) -> bool:
        return True  # the list depends on the model; `execute` checks against the right one

    @classmethod
    def execute(cls, model, class_name: str, classes: str) -> io.NodeOutput:
        known = require_classes(model)
        count, names = known.params.num_classes, known.class_names
        if classes.strip():
            chosen = parse_classes(classes, count, names)
        else:
            chosen = [find_class(class_name, count, names)]
        shown = numbered(names) if names else [str(index) for index in range(count)]
        shown.append(f"{count}: no class")
        show_text(cls, f"{shorten_list((shown[index] for index in chosen), 8)} (of {count} classes)")
        return io.NodeOutput(_conditioning(chosen), _conditioning([count]))


def _conditioning(labels: list[int]) -> list:
    # an empty text tensor rather than None: ComfyUI's own conditioning nodes expect one
    return [[torch.zeros(1, 1, 1), {CLASS: torch.tensor(labels, dtype=torch.int64)}]]


class PixelDiTTextPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schema = io.Schema(
            node_id="PixelDiTTextPrompt",
            display_name="PixelDiT Text Prompt",
            category="PixelDiT",
            description="What a text-to-image PixelDiT or PixelHDM shall paint, and what it shall keep away from: both "
            "prompts in one node, encoded as the model needs it. Says when a prompt is longer than the model reads.",
            hidden=[io.Hidden.unique_id],
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
                    tooltip="What to paint, in plain sentences. PixelDiT reads up to 299 tokens, about 200 words; "
                    "PixelHDM up to 511.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    default=NEGATIVE_PROMPT,
                    tooltip="What guidance leads away from. The default is the published one; empty works, too.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The encoded prompt."),
                io.Conditioning.Output(display_name="negative", tooltip="The encoded negative prompt."),
            ],
        )
        return searchable(schema, "clip text encode", "text to image", "prompt", "negative prompt", "gemma", "qwen")

    @classmethod
    def execute(cls, clip, prompt: str, negative_prompt: str) -> io.NodeOutput:
        prompts = {"prompt": prompt, "negative_prompt": negative_prompt}
        encoded = [text.encode(clip, words) for words in prompts.values()]
        cut = [f"{name}: {note}" for name, words in prompts.items() if (note := text.unread(clip, words))]
        if cut:
            show_text(cls, "\n".join(cut))
        return io.NodeOutput(*encoded)
