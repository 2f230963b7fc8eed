"""Templates of text-to-image and of editing."""

from __future__ import annotations

from graph import (
    CUPCAKE,
    HUB,
    LICENSE,
    ON_A_CUPCAKE,
    SETTINGS,
    UNDER_LABEL,
    UNDER_LOADER,
    UNDER_SAMPLER,
    Graph,
    Node,
    enlarge,
    label,
    loader,
    needs,
    note,
    sampler,
    save_image,
)

COMFY = "https://huggingface.co/Comfy-Org/PixelDiT/resolve/main"
T2I = "pixeldit_1300m_1024px_bf16.safetensors"
ENCODER = "gemma_2_2b_it_elm_bf16.safetensors"
NEGATIVE = "low quality, worst quality, over-saturated, blurry, deformed, watermark"


def text_encoder(pos: tuple[int, int]) -> Node:
    return Node(
        "CLIPLoader",
        pos,
        (340, 110),
        outputs=[("CLIP", "CLIP")],
        widgets=[ENCODER, "pixeldit", "default"],
        properties=needs(ENCODER, f"{COMFY}/text_encoders/{ENCODER}", "text_encoders"),
    )


def prompt(text: str, pos: tuple[int, int]) -> Node:
    return Node(
        "PixelDiTTextPrompt",
        pos,
        (400, 300),
        inputs=[("clip", "CLIP")],
        outputs=[("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
        widgets=[text, NEGATIVE],
    )


def text_links(pos: tuple[int, int]) -> Node:
    text = (
        f"## Model Links\n\n* [{T2I}]({COMFY}/diffusion_models/{T2I})\n* [{ENCODER}]({COMFY}/text_encoders/{ENCODER})\n\n"
        f"```\nComfyUI/models/\n  diffusion_models/{T2I}\n  text_encoders/{ENCODER}\n```\n\nNVIDIA's own file works "
        f"too: [pixeldit_t2i_v1.pth]({HUB}/PixelDiT-1300M-1024px/resolve/main/pixeldit_t2i_v1.pth) in "
        "diffusion_models. Press **R** to refresh the lists. These nodes do not download anything. The text encoder needs "
        f"ComfyUI 0.23 or newer.\n\n{LICENSE}"
    )
    return note(text, pos, (340, 430), "Model Links")


def text_to_image() -> None:
    graph = Graph()
    model = graph.add(loader(T2I, f"{COMFY}/diffusion_models/{T2I}"))
    clip = graph.add(text_encoder((0, UNDER_LOADER)))
    text = "A red fox sits on a mossy rock beside a mountain lake at sunrise, mist above the water, soft golden light."
    words = graph.add(prompt(text, (400, 0)), clip=(clip, 0))
    size = graph.add(
        Node(
            "PixelDiTSize",
            (400, 420),
            (400, 200),
            outputs=[("width", "INT"), ("height", "INT"), ("LATENT", "LATENT")],
            widgets=["1024", "1:1", "landscape", 1],
        )
    )
    settings = [50, "flow_dpmpp_2m", 2.75, 0.0, 0.0, 1.0, 1024, 1024, 1]
    sample = graph.add(
        sampler(2025, "t2i-1024", settings, (860, 0)),
        model=(model, 0),
        positive=(words, 0),
        negative=(words, 1),
        width=(size, 0),
        height=(size, 1),
    )
    graph.add(save_image("PixelDiT/text-to-image", (1260, 0), (600, 660)), images=(sample, 0))
    graph.add(text_links((0, 540)))
    graph.add(
        note(
            "## Settings\n\nThese are the published settings: 50 steps of flow_dpmpp_2m, cfg 2.75, timeshift 4. "
            "*t2i-1024-fast* has 25 steps. For 512, choose resolution 512 and *t2i-512* (timeshift 3).\n\nWrite whole "
            "sentences. The prompt node shows a note if a prompt is too long for the model.",
            (400, 730),
            (400, 200),
            "Settings",
        )
    )
    graph.scale = 0.65
    graph.save("PixelDiT Text to Image")


def image_to_image() -> None:
    graph = Graph()
    model = graph.add(loader(T2I, f"{COMFY}/diffusion_models/{T2I}"))
    clip = graph.add(text_encoder((0, UNDER_LOADER)))
    words = graph.add(prompt("An oil painting with broad brush strokes and warm colors.", (400, 0)), clip=(clip, 0))
    source = graph.add(
        Node("LoadImage", (400, 420), (400, 340), [], [("IMAGE", "IMAGE"), ("MASK", "MASK")], ["example.png", "image"])
    )
    settings = [50, "flow_dpmpp_2m", 2.75, 0.0, 0.0, 1.0, 0, 0, 1]
    sample = graph.add(
        sampler(2025, "t2i-1024", settings, (860, 0), denoise=0.6),
        model=(model, 0),
        positive=(words, 0),
        negative=(words, 1),
        image=(source, 0),
    )
    graph.add(save_image("PixelDiT/image-to-image", (1260, 0), (600, 660)), images=(sample, 0))
    graph.add(text_links((0, 540)))
    graph.add(
        note(
            "## Settings\n\n* **denoise** (advanced): 0.3 for small changes, 0.6 for large ones.\n* **width, height**: 0 is the "
            "size of the image. For another size, the image is scaled to cover it and center-cropped. Best near 1024 x "
            "1024.\n* **Inpainting**: draw a mask (right-click the image, *Open in Mask Editor*) and connect MASK to "
            "*mask*. Outside the mask, every pixel stays exactly the same.",
            (1260, 710),
            (600, 200),
            "Settings",
        )
    )
    graph.scale = 0.65
    graph.save("PixelDiT Image to Image")


def upper_half(graph: Graph, pos: tuple[int, int]) -> dict:
    """A mask of 96 x 96 that is white above, with a soft lower edge, from ComfyUI's own nodes."""
    x, y = pos
    out, size = [("MASK", "MASK")], (300, 130)
    black = graph.add(Node("SolidMask", (x, y), size, [], out, [0.0, 96, 96], title="Black: keep"))
    white = graph.add(Node("SolidMask", (x, y + 190), size, [], out, [1.0, 96, 48], title="White: regenerate"))
    feather = Node("FeatherMask", (x + 400, y + 190), (300, 150), [("mask", "MASK")], out, [0, 0, 0, 6])
    soft = graph.add(feather, mask=(white, 0))
    both = [("destination", "MASK"), ("source", "MASK")]
    composite = Node("MaskComposite", (x + 400, y), (300, 150), both, out, [0, 0, "add"])
    return graph.add(composite, destination=(black, 0), source=(soft, 0))


def inpaint() -> None:
    graph = Graph()
    model = graph.add(loader())
    settings = [*SETTINGS, 0, 0, 1]
    what, others = label(CUPCAKE, "", (0, UNDER_LOADER)), label(CUPCAKE, ON_A_CUPCAKE, (0, UNDER_LABEL))
    what.title, others.title = "The image", "What to put on it"
    cupcake, tops = (graph.add(node, model=(model, 0)) for node in (what, others))
    conditions = {"model": (model, 0), "positive": (cupcake, 0), "negative": (cupcake, 1)}
    first = graph.add(sampler(1, "checkpoint default", settings, (400, 0)), **conditions)
    mask = upper_half(graph, (400, UNDER_SAMPLER))
    conditions |= {"positive": (tops, 0), "image": (first, 0), "mask": (mask, 0)}
    second = graph.add(sampler(1, "checkpoint default", settings, (800, 0)), **conditions)
    before = graph.add(enlarge((1200, 0)), image=(first, 0))
    graph.add(save_image("PixelDiT/inpaint-first", (1200, 130), (300, 330)), images=(before, 0))
    after = graph.add(enlarge((1540, 0)), image=(second, 0))
    graph.add(save_image("PixelDiT/inpaint", (1540, 130), (520, 480)), images=(after, 0))
    graph.add(
        note(
            "## Press Run\n\nThe small bundled model generates a cupcake, then puts five other things on it. Where the mask "
            "is black, every pixel is identical to the first image: there is no VAE that could change it.\n\n"
            "* **What to put on it**: any of its 294 things; *cupcake* generates another top.\n"
            "* **mask**: white = regenerate, black = keep. Soft edges are blended.\n"
            "* **denoise** (advanced): below 1, the new part stays closer to the old one.\n\n**Your own photo**: use the "
            "template *PixelDiT Image to Image*, draw a mask in the mask editor and connect it.",
            (0, 2 * UNDER_LABEL - UNDER_LOADER),
            (340, 400),
            "Start here",
        )
    )
    graph.scale = 0.6
    graph.save("PixelDiT Inpaint")
