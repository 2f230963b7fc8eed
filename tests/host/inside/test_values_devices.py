"""Devices without float8, and attention of other packages that refuses a size of heads."""

import logging

import pytest
import tiny_t2i
import torch
from kit import close, golden_folder, in_memory, keeps_scaled, load, module, put, run, texts
from text_model import apply


@pytest.fixture
def mac(monkeypatch):
    """ComfyUI's own answers for a Mac: what it computes on is MPS, and the weights wait on the CPU."""
    import comfy.model_management as mm

    for name, value in {"get_torch_device": torch.device("mps"), "unet_offload_device": torch.device("cpu")}.items():
        monkeypatch.setattr(mm, name, lambda *_, value=value: value)
    monkeypatch.setattr(mm, "mac_version", lambda: (15, 5))


def loaded(name, style, **options):
    path = golden_folder(f"comfy-t2i-{style}", "peers") / "checkpoint.safetensors"
    return path, run("PixelDiTLoader", checkpoint=put(path, name), **options)[0]


def dtypes(model):
    return {value.dtype for value in in_memory(model).values()}


def test_float8_files_are_dequantized_on_a_mac(mac):
    for style in ("fp8-scaled", "fp8-metadata", "fp8-plain"):
        path, model = loaded(f"mac-{style}.safetensors", style, weight_dtype="default")
        assert all(dtype.itemsize > 1 for dtype in dtypes(model)), (style, dtypes(model))
        assert "fp8 kept" not in model.model.loaded
        exact = load(path, f"mac-{style}.safetensors").model.diffusion_model.state_dict()
        for key, value in model.model.diffusion_model.state_dict().items():
            close(value, exact[key], 0.01 * exact[key].abs().max().item() + 1e-6)


def test_float8_that_is_chosen_is_refused_on_a_mac(mac):
    for dtype in ("fp8_e4m3fn", "fp8_e5m2"):
        with pytest.raises(ValueError, match=rf"weight_dtype is {dtype}, which this device \(mps\) does not have"):
            loaded("mac-chosen.safetensors", "fp8-scaled", weight_dtype=dtype)
    assert dtypes(loaded("mac-fp32.safetensors", "fp8-scaled", weight_dtype="fp32")[1]) == {torch.float32}


def test_directml_has_no_float8_and_no_bfloat16(monkeypatch):
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "directml_enabled", True)
    monkeypatch.setattr(mm, "directml_device", torch.device("cpu"), raising=False)
    for dtype in ("fp8_e4m3fn", "bf16"):
        with pytest.raises(ValueError, match=f"weight_dtype is {dtype}, which this device"):
            loaded("directml.safetensors", "fp8-scaled", weight_dtype=dtype)
    assert all(entry.itemsize > 1 for entry in dtypes(loaded("directml.safetensors", "fp8-scaled")[1]))


def test_other_devices_keep_float8():
    model = loaded("kept.safetensors", "fp8-scaled", weight_dtype="default")[1]
    assert (torch.float8_e4m3fn in dtypes(model)) == keeps_scaled()
    assert torch.float8_e5m2 in dtypes(loaded("chosen.safetensors", "fp8-scaled", weight_dtype="fp8_e5m2")[1])


class Log(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    def __enter__(self):
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_):
        logging.getLogger().removeHandler(self)

    def about_attention(self):
        return [line for line in self.lines if "attention" in line.lower()]


class Sage:
    """SageAttention's function as pip gives it, for a CPU: it takes heads of some sizes only."""

    def __init__(self, heads=(64, 96, 128)):
        self.heads, self.calls, self.done = heads, 0, 0

    def __call__(self, q, k, v, attn_mask=None, sm_scale=None, **options):
        self.calls += 1
        assert q.shape[-1] in self.heads, f"headdim should be in {self.heads}."
        self.done += 1
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=sm_scale)


def use(monkeypatch, attention):
    """Have ComfyUI's choice of attention, which the pack asks on a CPU where the user chose."""
    from comfy.cli_args import args

    monkeypatch.setattr(args, "use_split_cross_attention", True)
    monkeypatch.setattr(module("nodes.host.attention"), "optimized_attention", attention)


def use_sage(monkeypatch, package):
    """As --use-sage-attention: ComfyUI's own function, which calls the package."""
    from comfy.ldm.modules import attention

    monkeypatch.setattr(attention, "sageattn", package, raising=False)
    monkeypatch.setattr(module("nodes.host.attention_backends"), "_taken", {})
    use(monkeypatch, attention.attention_sage)


def sample(model, steps=3):
    return run(
        "PixelDiTSampler", model=model, positive=texts(seed=1), negative=texts(seed=2), seed=1, steps=steps, width=32,
        height=32,
    )[0]  # fmt: skip


def test_heads_that_an_attention_refuses_go_to_pytorch_at_once(monkeypatch):
    for size in (72, 40):
        model = tiny_t2i.ours(hidden_size=size, num_groups=1, pixel_attn_hidden_size=size, pixel_num_groups=1)
        expected, backend = sample(model), Sage()
        with monkeypatch.context() as patch, Log() as log:
            use_sage(patch, backend)
            made = sample(model)
            close(made, expected, 1 / 255 + 1e-6)
            (line,) = log.about_attention()
            assert f"heads of {size} are computed by PyTorch's own (Error running sage attention: headdim" in line
            assert backend.calls == 1 and backend.done == 0, "asked once"
            sample(model)
            assert len(log.about_attention()) == 1, "one line in all"


def test_heads_that_it_takes_stay_there(monkeypatch):
    model = tiny_t2i.ours(hidden_size=64, num_groups=1, pixel_attn_hidden_size=72, pixel_num_groups=1)
    expected, backend = sample(model), Sage()
    with monkeypatch.context() as patch, Log() as log:
        use_sage(patch, backend)
        close(sample(model), expected, 1 / 255 + 1e-6)
        assert backend.done > 5 and backend.calls == backend.done + 1
        assert len(log.about_attention()) == 1


def test_an_attention_that_raises(monkeypatch):
    """xFormers and others are not caught by ComfyUI; no memory is an error of its own."""
    import comfy.model_management as mm

    model = tiny_t2i.ours()
    expected, calls = sample(model), []

    def raises(*_, **__):
        calls.append(1)
        raise NotImplementedError("no operator found for `memory_efficient_attention_forward`")

    with monkeypatch.context() as patch, Log() as log:
        use(patch, raises)
        close(sample(model), expected, 1 / 255 + 1e-6)
        assert len(calls) == 2 == len(log.about_attention()), "once for each size of heads"

    def full(*_, **__):
        raise mm.OOM_EXCEPTION("out of memory")

    with monkeypatch.context() as patch:
        use(patch, full)
        with pytest.raises(mm.OOM_EXCEPTION):
            sample(model)
    assert torch.equal(sample(model), expected), "the next run works"


def test_an_attention_that_a_node_sets(monkeypatch):
    """It may change more than the back-end, so it is called each time; its lines are not repeated."""
    model = tiny_t2i.ours()
    seen = []

    def override(func, q, k, v, heads, mask=None, **options):
        seen.append(func)
        logging.error("Error running sage attention: headdim, using pytorch attention instead.")
        return func(q, k, v, heads, mask=mask, **options) * 0.5

    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = override
    with Log() as log:
        made, again = sample(patched), sample(patched)
    assert torch.equal(made, again) and not torch.equal(made, sample(model))
    assert len(log.about_attention()) == 2 and len(seen) > 10, "a line for each size of heads"


def test_no_line_where_pytorch_computes(monkeypatch):
    with Log() as log:
        apply(tiny_t2i.ours())
    assert not log.about_attention()
