"""The template that trains a LoRA with ComfyUI's own nodes, once for each form that these nodes have had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graph import (
    FOX,
    SETTINGS,
    SHOWCASE,
    UNDER_LABEL,
    UNDER_LOADER,
    UNDER_SAMPLER,
    Graph,
    Node,
    enlarge,
    label,
    loader,
    note,
    sampler,
    save_image,
)

NAVY, AMBER = 0x101D5C, 0xFFD9A0
STEPS, RATE, RANK = 1500, 0.002, 8
TITLE, OLDER = "PixelDiT Train LoRA", "PixelDiT Train LoRA (older ComfyUI)"


@dataclass(frozen=True)
class Form:
    """ComfyUI's training nodes at a time: Train LoRA's outputs and last widgets, the other nodes' names and widgets."""

    title: str
    outputs: tuple[tuple[str, str], ...]
    widgets: tuple[Any, ...]  # after the seed
    save: str
    strength: tuple[Any, ...]  # of Load LoRA Model
    steps_is_widget: bool
    versions: str

    def slot(self, kind: str) -> int:
        return next(slot for slot, output in enumerate(self.outputs) if output[1] == kind)


NEWER = Form(
    TITLE,
    (("lora", "LORA_MODEL"), ("loss_map", "LOSS_MAP"), ("steps", "INT")),
    ("fp32", "fp32", False, "LoRA", False, 1, False, "[None]", False, False),
    "SaveLoRA",
    (1.0, False),
    True,
    f"This graph needs ComfyUI 0.19 or newer; 0.3 has other training nodes, for which there is the template *{OLDER}*.",
)
FIRST = Form(
    OLDER,
    (("model_with_lora", "MODEL"), ("lora", "LORA_MODEL"), ("loss", "LOSS_MAP"), ("steps", "INT")),
    ("fp32", "fp32", "LoRA", False, "[None]"),
    "SaveLoRANode",
    (1.0,),
    False,
    f"This graph is for ComfyUI 0.3. Newer versions have other training nodes: use the template *{TITLE}*.",
)


def new_look(graph: Graph, images: tuple[dict, int], pos: tuple[int, int]) -> dict:
    """Images in two colors: dark parts navy, bright ones amber."""
    x, y = pos
    image, over = [("IMAGE", "IMAGE")], [("destination", "IMAGE"), ("source", "IMAGE"), ("mask", "MASK")]
    navy = graph.add(Node("EmptyImage", (x, y), (300, 150), [], image, [96, 96, 1, NAVY], title="Navy"))
    dark = Node("ImageCompositeMasked", (x, y + 210), (300, 150), over, image, [0, 0, True], title="Shadows: navy")
    shadows = graph.add(dark, destination=images, source=(navy, 0))
    amber = graph.add(Node("EmptyImage", (x + 340, y), (300, 150), [], image, [96, 96, 1, AMBER], title="Amber"))
    bright = Node("ImageToMask", (x, y + 420), (300, 70), [("image", "IMAGE")], [("MASK", "MASK")], ["green"])
    mask = graph.add(bright, image=images)
    light = Node(
        "ImageCompositeMasked", (x + 340, y + 210), (300, 150), over, image, [0, 0, True], title="Lights: amber"
    )
    return graph.add(light, destination=(shadows, 0), source=(amber, 0), mask=(mask, 0))


def train(graph: Graph, form: Form, model: dict, images: dict, condition: tuple[dict, int]) -> dict:
    """Encode the images and train on them; Train LoRA's loss and file are shown and kept."""
    sockets = [("pixels", "IMAGE"), ("mask", "MASK"), ("model", "MODEL")]
    encode = Node("PixelDiTEncode", (1140, 420), (300, 90), sockets, [("LATENT", "LATENT")])
    latents = graph.add(encode, pixels=(images, 0))
    sockets = [("model", "MODEL"), ("latents", "LATENT"), ("positive", "CONDITIONING")]
    widgets = [1, 1, STEPS, RATE, RANK, "AdamW", "MSE", 0, "fixed", *form.widgets]
    node = Node("TrainLoraNode", (1480, 0), (340, 560), sockets, list(form.outputs), widgets)
    trained = graph.add(node, model=(model, 0), latents=(latents, 0), positive=condition)
    lora, loss, steps = ((trained, form.slot(kind)) for kind in ("LORA_MODEL", "LOSS_MAP", "INT"))
    graph.add(Node("LossGraphNode", (1860, 0), (340, 300), [("loss", "LOSS_MAP")], [], ["loss_graph"]), loss=loss)
    sockets = [("lora", "LORA_MODEL")] + ([] if form.steps_is_widget else [("steps", "INT")])
    widgets = ["loras/pixeldit-two-colors", *([STEPS] if form.steps_is_widget else [])]
    linked = {"steps": "INT"} if form.steps_is_widget else {}
    graph.add(Node(form.save, (1860, 370), (340, 110), sockets, [], widgets, linked=linked), lora=lora, steps=steps)
    sockets = [("model", "MODEL"), ("lora", "LORA_MODEL")]
    load = Node("LoraModelLoader", (1860, 570), (340, 110), sockets, [("model", "MODEL")], list(form.strength))
    return graph.add(load, model=(model, 0), lora=lora)


def train_lora(form: Form) -> None:
    graph = Graph()
    graph.scale = 0.6
    model = graph.add(loader())
    classes = graph.add(label(FOX, ", ".join([SHOWCASE] * 3), (0, UNDER_LOADER)), model=(model, 0))
    settings = [*SETTINGS, 96, 96, 1]

    def sampled(seed: int, pos: tuple[int, int], source: dict, classes: dict, title: str) -> dict:
        node = sampler(seed, "checkpoint default", settings, pos)
        node.title = title
        return graph.add(node, model=(source, 0), positive=(classes, 0), negative=(classes, 1))

    seen = sampled(5, (400, 0), model, classes, "Images to learn from")
    images = new_look(graph, (seen, 0), (800, 0))
    patched = train(graph, form, model, images, (classes, 1))
    shown = graph.add(label(FOX, SHOWCASE, (1860, 800)), model=(model, 0))
    before = sampled(1, (2260, 0), model, shown, "Before")
    after = sampled(1, (2260, UNDER_SAMPLER), patched, shown, "After: the same seed")
    preview = Node("PreviewImage", (800, 620), (640, 560), [("images", "IMAGE")], title="The look to learn")
    graph.add(preview, images=(images, 0))
    for source, name, y in ((before, "before", 0), (after, "after", UNDER_SAMPLER)):
        scale = graph.add(enlarge((2640, y)), image=(source, 0))
        graph.add(save_image(f"PixelDiT/train-lora-{name}", (2640, y + 130), (460, 410)), images=(scale, 0))
    graph.add(note(START, (0, UNDER_LABEL), (340, 330), "Start here"))
    graph.add(note(f"{OWN}\n\n{form.versions}", (400, UNDER_SAMPLER), (340, 480), "Your own images"))
    graph.save(form.title)


START = (
    "## Press Run\n\nThe small bundled model learns a new look as a LoRA, with nothing to download: it generates images, "
    "ComfyUI's nodes give them two colors, **Train LoRA** trains on them, and the same seed is sampled *before* and "
    f"*after*. {STEPS} steps take four to ten minutes on a CPU. (The loss jumps: each step is one image at a random "
    "time.)\n\nThe LoRA is saved in `output/loras`; copy it to `models/loras` for **PixelDiT LoRA** or Load LoRA. To "
    "train longer, choose it there as *existing_lora*."
)
OWN = (
    "## Your own images\n\n* Put them into a folder in `ComfyUI/input`, load them with *Load Image Dataset from Folder*, all "
    "at one size that the model accepts, and connect them to **PixelDiT Encode**.\n* **positive**: for a look, the *null* "
    "output as here; for a subject, *positive* of a PixelDiT Class Label of its class. For several classes: one PixelDiT "
    "Class Label per image, in the order of the images, joined by Conditioning (Combine).\n* **batch_size**: keep 1. "
    "ComfyUI calls the model with batch x batch images; **grad_accumulation_steps** gives larger batches for less.\n"
    "* **learning_rate**: 0.0001 to 0.0005 for large models. **training_dtype**: *bf16* on a GPU, with "
    "*gradient_checkpointing* on.\n* Text-to-image: connect *positive* of PixelDiT Text Prompt, or a caption for each image "
    "from ComfyUI's data set nodes."
)


def train_loras() -> None:
    for form in (NEWER, FIRST):
        train_lora(form)
