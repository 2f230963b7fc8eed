"""Templates of other families: PixelDiT2, x-prediction networks and PixelHDM."""

from __future__ import annotations

from graph import (
    DIGITS,
    HUB,
    UNDER_LABEL,
    UNDER_LOADER,
    Graph,
    Node,
    enlarge,
    label,
    loader,
    needs,
    note,
    sampler,
    save_animation,
    save_image,
)

QWEN = "qwen3_0.6b.safetensors"
QWEN_URL = "https://huggingface.co/Qwen/Qwen3-0.6B/resolve/main/model.safetensors"
HDM = "checkpoint_completed.pt"


SECOND = f"{HUB}/PixelDiT2-ImageNet/resolve/main"


def pixeldit2() -> None:
    checkpoint, encoder = "pixeldit2_h16_in256_ep600.ckpt", "dinov3_vits16.safetensors"
    small, base = (f"timm/vit_{size}_patch16_dinov3_qkvb.lvd1689m" for size in ("small", "base"))
    address = f"https://huggingface.co/{small}/resolve/main/model.safetensors"
    graph = Graph()
    frozen = {"name": encoder, "url": address, "directory": "clip_vision"}
    model = graph.add(loader(checkpoint, f"{SECOND}/{checkpoint}", (0, 0), frozen))
    classes = graph.add(label("207: golden retriever", "", (0, UNDER_LOADER)), model=(model, 0))
    settings = [50, "heun_exact", 2.4, 1.0, 0.125, 0.9, 256, 256, 1]
    sample = graph.add(
        sampler(7, "pixeldit2-256", settings, (400, 0)), model=(model, 0), positive=(classes, 0), negative=(classes, 1)
    )
    graph.add(save_image("PixelDiT/pixeldit2", (800, 0), (560, 620)), images=(sample, 0))
    graph.add(
        note(
            f"## Model Links\n\n* [{checkpoint}]({SECOND}/{checkpoint}) (nvidia/PixelDiT2-ImageNet)\n* its frozen encoder: "
            f"[model.safetensors]({address}) of {small}, under any name\n\nPut them here:\n\n```\nComfyUI/models/\n"
            f"  diffusion_models/{checkpoint}\n  clip_vision/{encoder}\n```\n\nthen press **R** to refresh the lists. "
            "The loader finds the encoder by itself. These nodes do not download anything.\n\nLicenses: the weights come "
            "from NVIDIA, whose PixelDiT weights are under NSCLv1: **research and evaluation only, no commercial use**; "
            "the encoder is under Meta's **DINOv3 License**.",
            (0, UNDER_LABEL),
            (340, 440),
            "Model Links",
        )
    )
    graph.add(
        note(
            "## Settings\n\nThese are the published settings (FID 1.46): 50 steps of Heun (two calls each), cfg 2.4, "
            "guidance from 0.125 to 0.9. For a preview choose *custom* with 25 steps.\n\n**512 x 512**: choose "
            "`pixeldit2_h16_in512_ep680.ckpt`, settings *pixeldit2-512*, width and height 512. It needs the larger encoder, "
            f"`model.safetensors` of {base}. Both encoders may be in clip_vision: their widths differ.",
            (800, 690),
            (560, 230),
            "Settings",
        )
    )
    graph.save("PixelDiT2 ImageNet 256")


def digits() -> None:
    graph = Graph()
    graph.scale = 0.65
    model = graph.add(loader(DIGITS))
    classes = graph.add(label("3: 3", "0-9", (0, UNDER_LOADER)), model=(model, 0))
    settings = [20, "ab2", 2.0, 0.0, 0.0, 1.0, 0, 0, 1]
    sample = graph.add(
        sampler(4, "checkpoint default", settings, (400, 0), frames=21),
        model=(model, 0),
        positive=(classes, 0),
        negative=(classes, 1),
    )
    enlarged = graph.add(enlarge((800, 0), 4, 28, "nearest-exact"), image=(sample, 0))
    graph.add(save_image("PixelDiT/digits", (800, 140), (400, 560)), images=(enlarged, 0))
    for number, (output, name, title) in enumerate(
        ((1, "states", "From noise to digits"), (2, "estimates", "The image as predicted"))
    ):
        x = 1240 + 460 * number
        frames = graph.add(enlarge((x, 0), 4, 28, "nearest-exact"), image=(sample, output))
        graph.add(save_animation(f"PixelDiT/digits-{name}", title, (x, 140), (420, 560)), images=(frames, 0))
    graph.add(
        note(
            "## Press Run\n\nThe small bundled grayscale model generates the ten digits at 28 x 28 pixels. Two animations show "
            "the sampling: *states*, the trajectory from noise to image, and *estimates*, the final image as predicted at "
            "each time (this model predicts the image, not the velocity).\n\n* **Your own model**: checkpoints of the "
            "public x-prediction trainer (`dit`, `mmdit`, `pixeldit`, `mmpixeldit`; MNIST or CIFAR-10) load unchanged: put "
            "the `.pt` into `models/diffusion_models`, press **R** and choose it. Sizes, mean, std and class names are read "
            "from the file.\n* **trajectory_frames** (advanced): number of frames; 0 = no animation.\n* **convention** "
            "(advanced): *reference* reproduces the original sampler exactly, including the noise that it leaves.\n\n"
            "The bundled model was trained on synthetic digits, not on MNIST.",
            (0, UNDER_LABEL),
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
            (0, UNDER_LOADER),
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
            (400, 420),
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
            "## Model Links\n\nNo PixelHDM weights are published: this template is for models you trained yourself. Put the "
            f"checkpoint (`{HDM}`, `checkpoint_epoch_12.pt` ...) and the text encoder here:\n\n```\nComfyUI/models/\n"
            f"  diffusion_models/{HDM}\n  text_encoders/{QWEN}\n```\n\n[{QWEN}]({QWEN_URL}) is `model.safetensors` of "
            "[Qwen/Qwen3-0.6B](https://huggingface.co/Qwen/Qwen3-0.6B), renamed (Apache 2.0); use any type in Load CLIP. It "
            "needs a ComfyUI of February 2026 or newer. Press **R** to refresh the lists. These nodes do not download "
            "anything.",
            (0, 540),
            (340, 340),
            "Model Links",
        )
    )
    graph.add(
        note(
            "## Settings\n\nThese are the authors' settings: 50 steps of Heun (two calls each), cfg 7.5, no timeshift. The "
            "**CFG schedule** is one of their strategies: full guidance at the start, none at the end; bypass it to "
            "compare.\n\n**convention** (advanced): *standard* integrates to the clean image; *reference* stops at t = 0.95 "
            "like the original program, which leaves some noise. Faster: *flow_dpmpp_2m* with 30 steps. The model was "
            "trained with an empty negative prompt.",
            (400, 620),
            (400, 230),
            "Settings",
        )
    )
    graph.save("PixelHDM Text to Image")
