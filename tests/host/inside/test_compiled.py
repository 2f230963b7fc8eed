"""torch.compile inside of ComfyUI: TorchCompileModel, and nodes that compile block by block, on a MODEL."""

import pytest
import torch
from class_model import guided, ksampler, pixeldit
from hooks import FAMILIES, load_nodes, model_of, sample
from kit import close, empty, labels, load_tiny, run
from loras import pairs, peft, put


class Graphs(list):
    """A backend that compiles no further than to graphs, and keeps them."""

    def __call__(self, graph, inputs):
        self.append(graph)
        return graph.forward


@pytest.fixture(autouse=True)
def fresh():
    """Nothing compiled before, and no gradients, as where ComfyUI runs nodes."""
    torch.compiler.reset()
    with torch.inference_mode():
        yield
    torch.compiler.reset()


def compiled(model, backend):
    load_nodes("torch_compile")
    return run("TorchCompileModel", model=model, backend=backend)[0]


def test_each_family_is_one_graph():
    """But PixelDiT2, whose encoder sees only the rows with a class: choosing them splits the graph."""
    for family in FAMILIES:
        torch.compiler.reset()
        graphs = Graphs()
        close(sample(compiled(model_of(family), graphs)), sample(model_of(family)), 3e-5)
        assert len(graphs) == 1 or family == "pixeldit2", f"{family}: {len(graphs)} graphs"


def test_interval_and_batches_are_at_most_one_graph_more():
    """Steps with guidance have twice the rows of those without: from then on the number of rows is dynamic."""
    graphs = Graphs()
    model, plain = guided(compiled(load_tiny(), graphs)), guided(load_tiny())
    close(ksampler(model), ksampler(plain), 3e-5)
    assert len(graphs) == 2
    for count in (3, 4, 5):
        options = {"latent_image": empty((count, 3, 16, 16)), "positive": labels([1] * count)}
        close(ksampler(model, **options), ksampler(plain, **options), 3e-5)
    close(pixeldit(model), pixeldit(plain), 3e-5)
    assert len(graphs) == 2


def with_lora(model):
    shapes = {key: tuple(value.shape) for key, value in model.model.diffusion_model.state_dict().items()}
    tensors = peft(pairs(shapes, ("patch_blocks.0.attn.qkv", "pixel_blocks.0.mlp.fc1")))
    return run("PixelDiTLoRA", model=model, lora_name=put("compiled.safetensors", tensors), strength_model=1.0)[0]


def test_a_lora_acts_before_and_after():
    plain, bare = ksampler(with_lora(load_tiny())), ksampler(load_tiny())
    assert (plain - bare).abs().max() > 1e-2
    close(ksampler(compiled(with_lora(load_tiny()), Graphs())), plain, 3e-5)
    model = compiled(load_tiny(), Graphs())
    close(ksampler(with_lora(model)), plain, 3e-5)
    close(ksampler(model), bare, 3e-5)


def test_blocks_compiled_one_by_one():
    """As KJNodes' TorchCompileModelAdvanced does with lists of these names: blocks of a kind share their graphs."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model, graphs = load_tiny(), Graphs()
    network = model.model.diffusion_model
    lists = {name: len(getattr(network, name)) for name in ("patch_blocks", "pixel_blocks")}
    names = [f"diffusion_model.{name}.{index}" for name, count in lists.items() for index in range(count)]
    model = guided(with_lora(model))
    set_torch_compile_wrapper(model, backend=graphs, keys=names)
    close(ksampler(model), ksampler(guided(with_lora(load_tiny()))), 3e-5)
    assert 0 < len(graphs) <= 2 * len(names)  # without guidance, and for any number of rows


def test_the_node_s_own_backend():
    """On the smallest network: inductor takes long."""
    close(sample(compiled(model_of("dit-r1"), "inductor")), sample(model_of("dit-r1")), 3e-5)
