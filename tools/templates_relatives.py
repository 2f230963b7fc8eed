"""Templates of PixelDiT's relatives: x-prediction networks and PixelHDM."""

from __future__ import annotations

from graph import DIGITS, Graph, Node, enlarge, label, loader, needs, note, sampler, save_animation, save_image

QWEN = "qwen3_0.6b.safetensors"
QWEN_URL = "https://huggingface.co/Qwen/Qwen3-0.6B/resolve/main/model.safetensors"
HDM = "checkpoint_completed.pt"


def digits() -> None:
    graph = Graph()
    graph.scale = 0.65
    model = graph.add(loader(DIGITS))
    classes = graph.add(label("3: 3", "0-9", (0, 220)), model=(model, 0))
    settings = [20, "ab2", 2.0, 0.0, 0.0, 1.0, 0, 0, 1]
    sample = graph.add(
        sampler(4, "the checkpoint's own", settings, (400, 0), frames=21),
        model=(model, 0),
        positive=(classes, 0),
        negative=(classes, 1),
    )
    picture = graph.add(enlarge((800, 0), 4, 28, "nearest-exact"), image=(sample, 0))
    graph.add(save_image("PixelDiT/digits", (800, 140), (400, 560)), images=(picture, 0))
    for number, (output, name, title) in enumerate(
        ((1, "states", "From noise to digits"), (2, "estimates", "What the model foresees"))
    ):
        x = 1240 + 460 * number
        frames = graph.add(enlarge((x, 0), 4, 28, "nearest-exact"), image=(sample, output))
        graph.add(save_animation(f"PixelDiT/digits-{name}", title, (x, 140), (420, 560)), images=(frames, 0))
    graph.add(
        note(
            "## Press Run\n\nA small gray model of 28 x 28 pixels that comes with the pack writes the ten digits, and two "
            "animations show how: the state on its way from noise, and the picture that the model foresees at each "
            "moment (it predicts the image, not the velocity).\n\n* **Your own**: checkpoints of the public x-prediction "
            "trainer (`dit`, `mmdit`, `pixeldit`, `mmpixeldit`; MNIST or CIFAR-10) load as they are: put the `.pt` into "
            "`models/diffusion_models`, press **R**, choose it. Sizes, mean, spread and class names come from the file.\n"
            "* **frames** (advanced): how many; 0 = no animation.\n* **convention** (advanced): *published* walks exactly as that "
            "trainer's program, which keeps some noise when timeshift is not 1.\n\nThis model was trained on digits that "
            "the pack draws itself, not on MNIST.",
            (0, 460),
            (340, 380),
            "Start here",
        )
    )
    graph.save("PixelDiT MNIST digits")


def pixelhdm() -> None:
    graph = Graph()
    graph.scale = 0.65
    model = graph.add(loader(HDM))
    clip = graph.add(
        Node(
            "CLIPLoader",
            (0, 220),
            (340, 110),
            outputs=[("CLIP", "CLIP")],
            widgets=[QWEN, "stable_diffusion", "default"],
            properties=needs(QWEN, QWEN_URL, "text_encoders"),
        )
    )
    words = graph.add(
        Node(
            "PixelDiTTextPrompt",
            (400, 0),
            (400, 300),
            inputs=[("clip", "CLIP")],
            outputs=[("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
            widgets=["A lighthouse on a cliff above a stormy sea.", ""],
        ),
        clip=(clip, 0),
    )
    settings = [50, "heun_exact", 7.5, 0.0, 0.0, 1.0, 512, 512, 1]
    schedule = graph.add(
        Node(
            "PixelDiTCFGSchedule",
            (400, 360),
            (400, 110),
            [("model", "MODEL")],
            [("MODEL", "MODEL")],
            ["cosine", 1.0],
        ),
        model=(model, 0),
    )
    sample = graph.add(
        sampler(42, "pixelhdm", settings, (860, 0)),
        model=(schedule, 0),
        positive=(words, 0),
        negative=(words, 1),
    )
    graph.add(save_image("PixelDiT/pixelhdm", (1260, 0), (600, 660)), images=(sample, 0))
    graph.add(
        note(
            "## Model Links\n\nNobody has published PixelHDM weights: this is for those who train it. Put the trainer's "
            f"checkpoint (`{HDM}`, `checkpoint_epoch_12.pt` ...) and the text encoder here:\n\n```\nComfyUI/models/\n"
            f"  diffusion_models/{HDM}\n  text_encoders/{QWEN}\n```\n\n[{QWEN}]({QWEN_URL}) is `model.safetensors` of "
            "[Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B), renamed (Apache 2.0); any type in Load CLIP. "
            "ComfyUI of February 2026 or newer. Press **R** to refresh the lists. Nothing is downloaded by these nodes.",
            (0, 390),
            (340, 340),
            "Model Links",
        )
    )
    graph.add(
        note(
            "## Settings\n\nThe settings is the authors': 50 steps of Heun (two calls each), cfg 7.5, no timeshift. The "
            "**schedule** is one of their strategies: full guidance at the noise, none at the end; bypass it to compare.\n\n"
            "**convention** (advanced) *house* goes on to a clean image; *published* stops at t = 0.95, as their program does, and "
            "leaves a little noise. Cheaper: *flow_dpmpp_2m* with 30 steps. An empty negative prompt is what it was "
            "trained with.",
            (400, 530),
            (400, 230),
            "Settings",
        )
    )
    graph.save("PixelHDM Text to Image")
