"""Compiled sampling: one graph for every batch of several images, and eager's numbers.

The tracer alone makes the graphs (it decides how many there are); inductor compiles one of them.
"""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import TINY as TINY_CLASS
from factories import TINY_T2I, fill
from families.test_network_inputs import HDM
from helpers import close
from PIL import Image
from pixeldit2_cases import TINY as TINY_PIXELDIT2
from xpred_cases import KINDS, family_of

import pixeldit_core as pc
from pixeldit_core.cli import main
from pixeldit_core.compiled import compiled_velocity

NETWORKS = {
    "pixeldit": (TINY_CLASS, 16),
    "pixeldit_t2i": (TINY_T2I, 16),
    "pixeldit2": (TINY_PIXELDIT2, 16),
    "pixelhdm": (HDM, 16),
    **{family_of(params).name: (params, 12) for params in KINDS},
}  # params and size of image
ONE_IMAGE = {"pixeldit2": 2}  # graphs for one image: with guidance, only one of its two rows is grounded
COMPILE = torch.compile


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are made, of which none is compiled any further."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    use(monkeypatch, backend)
    return made


def use(monkeypatch, backend):
    monkeypatch.setattr(
        torch, "compile", lambda function, fullgraph, mode: COMPILE(function, fullgraph=fullgraph, backend=backend)
    )


def build(name):
    model = pc.build_model(name, NETWORKS[name][0], device="cpu")
    fill(model.network)
    return model


def conditions(model, count, length=5):
    if model.family.condition == "class":
        return pc.class_condition(model, [index % 3 for index in range(count)]), None
    generator = torch.Generator().manual_seed(count)
    width = model.params.txt_embed_dim

    def text(rows):
        states = torch.randn(rows, length, width, generator=generator)
        return pc.text_condition(model, states, pooled=states[:, -1])

    return text(count), text(1)


def sample(model, count, length=5, size=None, **options):
    cond, null = conditions(model, count, length)
    size = size or (NETWORKS[model.family.name][1],) * 2
    settings = {"steps": 4, "cfg": 2.0, "cfg_interval": (0.1, 0.9), "solver": "ab2", **options}
    return pc.sample(model, cond, null, seeds=range(count), size=size, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_batch_has_one_graph_and_eager_s_numbers(name, graphs):
    """Steps with guidance and without, the last and smaller batch; one image has a graph of its own."""
    model = build(name)
    for count in (2, 4, 3):
        close(sample(model, count, compile=True), sample(model, count), 1e-5)
    assert len(graphs) == 1
    for count in (1, 2, 1):
        close(sample(model, count, compile=True), sample(model, count), 1e-5)
    assert len(graphs) == 1 + ONE_IMAGE.get(name, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_tensor_of_a_graph_is_on_the_cpu(name):
    """One alone would keep the whole graph out of CUDA graphs."""
    (params, size), found = NETWORKS[name], []

    def backend(graph, inputs):
        values = [(node, node.meta.get("example_value")) for node in graph.graph.nodes]
        found.extend(node for node, value in values if isinstance(value, torch.Tensor) and value.device.type == "cpu")
        return graph.forward

    model = pc.build_model(name, params)
    x = torch.empty(2, params.in_channels, size, size, device="meta")
    given = model.arguments(x, 0.5, conditions(model, 2)[0])
    compiled = COMPILE(model.predict_velocity, fullgraph=True, backend=backend)
    assert compiled(x, given.time, given.condition, **given.options).device.type == "meta"
    assert not found


@pytest.mark.slow
def test_another_length_of_text_and_another_size_have_graphs_once(graphs):
    """Lengths are dynamic from the second on; each size is a graph."""
    model, counts = build("pixeldit_t2i"), []
    for length, size in ((5, (16, 16)), (4, (16, 16)), (3, (16, 16)), (4, (16, 24)), (3, (16, 24)), (5, (16, 16))):
        run = {"length": length, "size": size, "steps": 2}
        close(sample(model, 2, compile=True, **run), sample(model, 2, **run), 1e-5)
        counts.append(len(graphs))
    assert counts == [1, 2, 2, 3, 3, 3]


def test_the_model_keeps_what_was_compiled(graphs):
    model, other = build("xpred_dit"), build("xpred_dit")
    for _ in range(2):
        sample(model, 2, compile=True)
    compiled = model.compiled
    assert len(graphs) == 1 and other.compiled is None
    fill(other.network, seed=1)
    close(sample(other, 2, compile=True), sample(other, 2), 1e-5)  # not with the other's weights
    assert other.compiled is not compiled and model.compiled is compiled
    assert (compiled.calls, compiled.first_calls) == (8, 2)
    assert 0 < compiled.first_seconds < compiled.seconds
    assert "for the first 2 calls, which compile, then " in compiled.describe()


def test_a_velocity_is_kept_when_the_next_call_overwrites_it(monkeypatch):
    """As a CUDA graph does: the solver reads the velocity of the step before."""
    buffers = {}

    def backend(graph, inputs):
        def run(*arguments):
            (result,) = graph.forward(*arguments)
            return (buffers.setdefault(result.shape, torch.empty_like(result)).copy_(result),)

        return run

    use(monkeypatch, backend)
    model = build("xpred_dit")
    compiled_velocity(model)._records = True
    close(sample(model, 2, compile=True), sample(model, 2), 1e-5)
    assert len(buffers) == 2


@pytest.mark.slow
def test_inductor_gives_eager_s_numbers():
    model = build("xpred_dit")
    for count in (2, 3):
        close(sample(model, count, compile=True), sample(model, count), 1e-5)


def test_without_a_compiler_the_message_says_what_to_install():
    import torch._inductor.config as inductor

    missing = inductor.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True})
    message = r"InvalidCxxCompiler.*needs a C\+\+ compiler.*or sample without compile"
    with missing, pytest.raises(ValueError, match=message):
        sample(build("xpred_dit"), 2, compile=True)


def test_the_command_line_compiles_and_says_how_long_it_took(graphs, tmp_path, capsys):
    model = build("xpred_dit")
    model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=4, cfg=2.0, size=(12, 12)))
    pc.save_checkpoint(model, tmp_path / "tiny.safetensors")
    plain = [str(tmp_path / "tiny.safetensors"), "--device", "cpu", "--batch-size", "2", "--out"]
    assert main(["sample", *plain, str(tmp_path / "plain")]) == 0  # three classes: a batch of two, then of one
    assert main(["sample", *plain, str(tmp_path / "sample"), "--compile"]) == 0
    assert main(["evaluate", *plain, str(tmp_path / "run"), "--compile", "--count", "6"]) == 0
    assert len(graphs) == 2  # the second command's model is like the first's
    said = re.findall(r"compiled .*which compile.*", capsys.readouterr().out)
    assert len(said) == 2 and all(" s a call" in line for line in said)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["dtype"] == "float32, compiled"
    for name in ("0_0.png", "2_0.png"):
        images = [np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in ("sample", "plain")]
        assert np.abs(images[0] - images[1]).max() <= 1
