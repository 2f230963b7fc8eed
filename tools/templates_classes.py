"""Templates of class-conditional models."""

from __future__ import annotations

from typing import Any

from graph import (
    FOX,
    HUB,
    LICENSE,
    RACCOON,
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

IMAGENET = f"{HUB}/PixelDiT-ImageNet/resolve/main"


def quickstart() -> None:
    graph = Graph()
    model = graph.add(loader())
    classes = graph.add(label(FOX, SHOWCASE, (0, UNDER_LOADER)), model=(model, 0))
    settings = [*SETTINGS, 96, 96, 1]
    sample = graph.add(
        sampler(1, "checkpoint default", settings, (400, 0)),
        model=(model, 0),
        positive=(classes, 0),
        negative=(classes, 1),
    )
    scale = graph.add(enlarge((800, 0)), image=(sample, 0))
    graph.add(save_image("PixelDiT/quickstart", (800, 150), (560, 480)), images=(scale, 0))
    graph.add(
        note(
            "## Press Run\n\nThe small bundled model knows 294 things by name. It generates one image of each of these twelve, "
            "straight to pixels: no VAE, no download, a few seconds on a CPU.\n\n"
            "* **Others**: write their names into `classes`, such as `owl, mango, dragon`, or numbers, `0, 3, 5-7`.\n"
            "* **One of the list**: clear the `classes` field and choose in `class_name`.\n"
            "* **Other images**: change `seed`.\n"
            "* **settings**: *checkpoint default* uses the settings stored in the checkpoint; the node shows them. Choose "
            "*custom* to use the values below it.\n\nFor the published ImageNet models, open the templates *PixelDiT "
            "ImageNet 256* and *512*.",
            (0, UNDER_LABEL),
            (340, 330),
            "Start here",
        )
    )
    graph.save("PixelDiT Quickstart")


def imagenet(size: int, checkpoint: str, name: str, settings: list[Any], text: str) -> None:
    graph = Graph()
    model = graph.add(loader(checkpoint, f"{IMAGENET}/{checkpoint}"))
    classes = graph.add(label("207: golden retriever", "", (0, UNDER_LOADER)), model=(model, 0))
    sample = graph.add(
        sampler(7, name, settings, (400, 0)), model=(model, 0), positive=(classes, 0), negative=(classes, 1)
    )
    graph.add(save_image(f"PixelDiT/imagenet{size}", (800, 0), (560, 620)), images=(sample, 0))
    links = (
        f"## Model Links\n\n[{checkpoint}]({IMAGENET}/{checkpoint}) (nvidia/PixelDiT-ImageNet)\n\nPut it here:\n\n```\n"
        f"ComfyUI/models/diffusion_models/{checkpoint}\n```\n\nthen press **R** to refresh the lists. These nodes "
        f"do not download anything.\n\n{LICENSE}"
    )
    graph.add(note(links, (0, UNDER_LABEL), (340, 300), "Model Links"))
    graph.add(note(text, (800, 690), (560, 230), "Settings"))
    graph.save(f"PixelDiT ImageNet {size}")


def imagenets() -> None:
    imagenet(
        256,
        "imagenet256_pixeldit_xl_epoch320.ckpt",
        "imagenet256-epoch320",
        [100, "ab2", 2.75, 1.0, 0.1, 0.9, 256, 256, 1],
        "## Settings\n\nThese are the published settings (gFID 1.61): 100 steps of ab2, cfg 2.75, timeshift 1, guidance from "
        "0.1 to 0.9. For a preview choose *custom* with 25 to 50 steps.\n\nThe checkpoints of epochs 80 and 160 have "
        "settings of their own (cfg 3.25, guidance from 0.1 to 1).\n\nFor several classes at once, write "
        "`1, 207, 250-253` into `classes`.",
    )
    imagenet(
        512,
        "imagenet512_pixeldit_xl.ckpt",
        "imagenet512",
        [100, "ab2", 3.5, 2.0, 0.1, 1.0, 512, 512, 1],
        "## Settings\n\nThese are the published settings (gFID 1.78): 100 steps of ab2, cfg 3.5, timeshift 2, guidance from "
        "0.1 to 1. For a preview choose *custom* with 25 to 50 steps; keep timeshift at 2 (or 0, automatic) for this "
        "size.",
    )


def mix() -> None:
    """A mix of two classes between the two, from the same noise."""
    graph = Graph()
    graph.scale = 0.6
    model = graph.add(loader())
    one = graph.add(label(FOX, "", (0, UNDER_LOADER)), model=(model, 0))
    two = graph.add(label(RACCOON, "", (0, UNDER_LABEL)), model=(model, 0))
    sockets = [("conditioning_to", "CONDITIONING"), ("conditioning_from", "CONDITIONING")]
    half = Node("ConditioningAverage", (400, 0), (300, 110), sockets, [("CONDITIONING", "CONDITIONING")], [0.5])
    both = graph.add(half, conditioning_to=(one, 0), conditioning_from=(two, 0))
    number = Node("PrimitiveInt", (400, 180), (300, 90), [], [("INT", "INT")], [1, "fixed"], title="Seed of all")
    seed, settings = graph.add(number), [*SETTINGS, 96, 96, 4]
    columns = (("The first", "mix-first", one), ("The mix", "mix", both), ("The second", "mix-second", two))
    for column, (title, name, source) in enumerate(columns):
        x, node = 760 + 380 * column, sampler(1, "checkpoint default", settings, (760 + 380 * column, 0))
        node.title = title
        sample = graph.add(node, model=(model, 0), positive=(source, 0), negative=(one, 1), seed=(seed, 0))
        scale = graph.add(enlarge((x, UNDER_SAMPLER)), image=(sample, 0))
        graph.add(save_image(f"PixelDiT/{name}", (x, UNDER_SAMPLER + 130), (340, 430)), images=(scale, 0))
    graph.add(
        note(
            "## Press Run\n\nThe small bundled model generates four foxes, four mixes of a fox and a raccoon, and four "
            "raccoons, each from the same four noises.\n\n"
            "* **conditioning_to_strength**: 1 is the first class, 0 the second, 0.5 as much of both.\n"
            "* **class_name** of the two labels: any two classes. A mix is also possible with ImageNet's.\n"
            "* **Seed of all**: other images.\n\nMixed are the embeddings of the classes, and so an image changes as a "
            "whole. A class averaged with *null* is a weaker class.",
            (400, 340),
            (300, 400),
            "Start here",
        )
    )
    graph.save("PixelDiT mix two classes")


def with_ksampler() -> None:
    graph = Graph()
    graph.scale = 0.7
    model = graph.add(loader())
    classes = graph.add(label(FOX, "", (0, UNDER_LOADER)), model=(model, 0))
    interval = graph.add(
        Node("PixelDiTCFGInterval", (400, 0), (300, 90), [("model", "MODEL")], [("MODEL", "MODEL")], [0.0, 0.7]),
        model=(model, 0),
    )
    latent = graph.add(
        Node("EmptyChromaRadianceLatentImage", (0, UNDER_LABEL), (340, 110), [], [("LATENT", "LATENT")], [96, 96, 4])
    )
    inputs = [
        ("model", "MODEL"),
        ("positive", "CONDITIONING"),
        ("negative", "CONDITIONING"),
        ("latent_image", "LATENT"),
    ]
    ksampler = graph.add(
        Node(
            "KSampler",
            (760, 0),
            (300, 270),
            inputs,
            [("LATENT", "LATENT")],
            [1, "fixed", 25, 2.0, "euler", "simple", 1.0],
        ),
        model=(interval, 0),
        positive=(classes, 0),
        negative=(classes, 1),
        latent_image=(latent, 0),
    )
    decode = graph.add(
        Node("PixelDiTDecode", (1100, 0), (220, 40), [("samples", "LATENT")], [("IMAGE", "IMAGE")]),
        samples=(ksampler, 0),
    )
    graph.add(save_image("PixelDiT/ksampler", (1360, 0), (360, 330)), images=(decode, 0))

    noise = graph.add(Node("RandomNoise", (400, 560), (300, 90), [], [("NOISE", "NOISE")], [1, "fixed"]))
    guider_inputs = [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING")]
    guider = graph.add(
        Node("CFGGuider", (400, 700), (300, 110), guider_inputs, [("GUIDER", "GUIDER")], [2.0]),
        model=(interval, 0),
        positive=(classes, 0),
        negative=(classes, 1),
    )
    solver = graph.add(Node("PixelDiTSolver", (400, 860), (300, 70), [], [("SAMPLER", "SAMPLER")], ["ab2"]))
    sigmas = graph.add(
        Node(
            "PixelDiTScheduler",
            (400, 980),
            (300, 150),
            [("model", "MODEL"), ("latent", "LATENT")],
            [("SIGMAS", "SIGMAS")],
            [25, 0.0, 1.0, 0.0],
        ),
        model=(interval, 0),
        latent=(latent, 0),
    )
    custom_inputs = [
        ("noise", "NOISE"),
        ("guider", "GUIDER"),
        ("sampler", "SAMPLER"),
        ("sigmas", "SIGMAS"),
        ("latent_image", "LATENT"),
    ]
    custom = graph.add(
        Node(
            "SamplerCustomAdvanced",
            (760, 560),
            (300, 140),
            custom_inputs,
            [("output", "LATENT"), ("denoised_output", "LATENT")],
        ),
        noise=(noise, 0),
        guider=(guider, 0),
        sampler=(solver, 0),
        sigmas=(sigmas, 0),
        latent_image=(latent, 0),
    )
    second = graph.add(
        Node("PixelDiTDecode", (1100, 560), (220, 40), [("samples", "LATENT")], [("IMAGE", "IMAGE")]),
        samples=(custom, 0),
    )
    graph.add(save_image("PixelDiT/custom", (1360, 560), (360, 330)), images=(second, 0))
    graph.add(
        note(
            "## ComfyUI's own samplers\n\nPixelDiT Loader outputs a regular MODEL. Top: **KSampler** with `euler` and "
            "`simple`. Bottom: **SamplerCustomAdvanced** with the published solver and time grid.\n\n"
            "* **PixelDiT CFG Interval** limits guidance to an interval.\n* Timeshift: add **ModelSamplingSD3**; its "
            "shift is the timeshift.\n* The latent holds pixels: 3 channels at full size, from "
            "EmptyChromaRadianceLatentImage or **PixelDiT Encode**. *Empty Latent Image* is for models with a VAE.\n"
            "* **PixelDiT Decode** converts the latent to an image; there is no VAE.",
            (0, 780),
            (340, 360),
            "How it is wired",
        )
    )
    graph.save("PixelDiT with KSampler")
