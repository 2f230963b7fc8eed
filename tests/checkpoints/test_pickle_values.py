"""Other things beside the weights of a pickled file: stepped over, whatever the container and the protocol."""

import argparse
import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import pathlib
import re
import sys
import typing
import uuid

import numpy as np
import pytest
import torch
from checkpoints.files import same
from checkpoints.pickled_files import foreign, rewrite, save

import pixeldit_core as pc

STRUCTURE = np.zeros(2, [("a", "f4"), ("b", "i4", (2,)), ("c", "U3")])
TIMES = [datetime.datetime(2026, 11, 25, tzinfo=datetime.timezone.utc), datetime.date.min, datetime.time.max]

VALUES = {
    "namespace": argparse.Namespace(model="PixelDiT-B/16", lr=1e-4, results=None, betas=(0.9, 0.99), on=[1, {"a": 2}]),
    "namespaces in one another": argparse.Namespace(data=argparse.Namespace(path=pathlib.PurePosixPath("a/b"))),
    "simple namespace": [__import__("types").SimpleNamespace(a=1)],
    "numpy numbers": [np.float64(4.5), np.float32(1), np.int64(3), np.uint8(1), np.bool_(True), np.complex64(1j)],
    "numpy strings and times": [np.str_("best"), np.bytes_(b"best"), np.datetime64("2026-11-25"), np.timedelta64(1)],
    "numpy arrays": [np.linspace(4, 5, 3), np.zeros((2, 0)), np.asfortranarray(np.eye(3)), np.array(2.0)],
    "numpy arrays of strings": [np.array(["cat", "dog"]), np.array([b"a"]), STRUCTURE, np.zeros(2, "M8[s]")],
    "numpy array of objects": np.array(["cat", None, 1.5], dtype=object),
    "numpy dtypes": [np.dtype("f4"), STRUCTURE.dtype, np.float32],
    "numpy random": [np.random.RandomState(0), np.random.default_rng(0), np.random.get_state()],
    "paths": [pathlib.Path("runs/7"), pathlib.PurePosixPath("/a"), pathlib.PureWindowsPath("c:/runs")],
    "times": [*TIMES, datetime.timedelta(3)],
    "numbers": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), 2**40, 2**70, 2**3000, -(2**3000), 1j, float("nan")],
    "collections": [collections.deque([1], 3), collections.defaultdict(list, {1: 2}), collections.Counter("ab")],
    "sets": [{1, 2}, frozenset(["a"]), set(), {(1, (2, 3))}],
    "bytes": [b"", b"abc\xff", bytearray(b"abc"), bytearray()],
    "others of Python": [uuid.UUID(int=7), array.array("d", [1.0]), range(3), slice(1), type(None), re.compile("a")],
    "types": [int, typing.Any, typing.Literal["a"], list[int], collections.OrderedDict],
    "of torch": [torch.bfloat16, torch.device("cuda:0"), torch.Size([1, 2]), torch.Generator(), torch.strided],
    "classes of torch": [torch.nn.SiLU, torch.optim.AdamW, torch.Tensor],
    "tensors": [torch.nn.Parameter(torch.zeros(2)), torch.zeros(3, dtype=torch.float8_e4m3fn), torch.zeros(0, 3)],
    "sizes as keys": {(64, 48): 7, 1.5: 9, None: 1, True: 2, ("a", 1.0, None): 3, 0.9999: {"a": 1}, 2**40: 3, b"a": 4},
    "classes as keys": {torch.float16: 1, pathlib.PurePosixPath("a"): 2, np.float64: 3, torch.device("cpu"): 4},
}  # fmt: skip


def checked(path, model):
    found = pc.load_checkpoint(path)
    assert same(found, model.network.state_dict())
    assert pc.inspect_checkpoint(path).params == model.params


@pytest.mark.parametrize("container, protocol", [("zip", 2), ("zip", 5), ("legacy", 2), ("legacy", 4)])
@pytest.mark.parametrize("kind", VALUES)
def test_values_beside_the_weights(tiny, tmp_path, kind, container, protocol):
    model = tiny()
    stored = {"args": VALUES[kind], "state_dict": model.network.state_dict(), "inner": {"more": [VALUES[kind]]}}
    checked(save(tmp_path / "run.pt", stored, container, protocol), model)


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_protocols(tiny, tmp_path, container, protocol):
    if (container, protocol) == ("legacy", 1):
        pytest.skip("such a file does not begin as a pickle does")
    model = tiny()
    stored = {"state_dict": model.network.state_dict(), "on": [True, 2**80, None, 1.5, "x" * 300, "\u56fe", b"x" * 300]}
    stored |= {"args": argparse.Namespace(a=1), "many": list(range(3000)), "set": {1}, "texts": ("a",) * 5}
    checked(save(tmp_path / "run.pt", stored, container, protocol), model)


class Mode(enum.Enum):
    FAST = "fast"


class Number(enum.IntEnum):
    ONE = 1


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Settings:
    lr: float = 1e-4
    mode: Mode = Mode.FAST


@dataclasses.dataclass(frozen=True, slots=True)
class Slots:
    lr: float = 1e-4


class Fields(collections.OrderedDict):
    pass


class Config(dict):
    pass


class Whole:
    def __init__(self):
        self.__dict__ = {"_content": {"a": Settings()}, "parent": self}


OWN = {
    "enum": [Mode.FAST, {Mode.FAST: 1}, Number.ONE],
    "tuple with names": Point(1, [2]),
    "dataclass": [Settings(), Slots()],
    "dictionaries": [Fields(a=1, b=Fields()), Config(a=Config(b=1))],
    "object with itself in it": Whole(),
    "class": [Settings, {Settings: 1}],
    "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]),
    "loss without weights": torch.nn.MSELoss(),
    "network in the settings": {"net": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.SiLU())},
}


@pytest.mark.parametrize("protocol", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", OWN)
def test_objects_of_a_trainer(tiny, tmp_path, kind, protocol):
    model = tiny()
    stored = {"hyper_parameters": {"own": OWN[kind]}, "model": model.network.state_dict()}
    checked(save(tmp_path / "run.pt", stored, "zip", protocol), model)


@pytest.mark.parametrize("name, base", [
    ("omegaconf.dictconfig.DictConfig", object), ("omegaconf.listconfig.ListConfig", object),
    ("easydict.EasyDict", dict), ("addict.addict.Dict", dict), ("my_trainer.Args", object),
    ("ml_collections.config_dict.config_dict.ConfigDict", object), ("transformers.Config", object),
    ("diffusers.configuration_utils.FrozenDict", collections.OrderedDict),
])  # fmt: skip
def test_configurations_of_packages_that_are_not_here(tiny, tmp_path, monkeypatch, name, base):
    model, path = tiny(), tmp_path / "run.ckpt"
    with monkeypatch.context() as there:
        made = foreign(there, name, base)()
        made.__dict__ = {"_content": {"lr": 1e-4, "path": pathlib.PurePosixPath("a")}, "_metadata": {"key": typing.Any}}
        if base is not object:
            made["size"] = 3
        save(path, {"hyper_parameters": made, "config": made, "state_dict": model.network.state_dict()})
    before = set(sys.modules)
    checked(path, model)
    assert set(sys.modules) == before


def test_the_callbacks_of_an_old_lightning(tiny, tmp_path, monkeypatch):
    """Classes as keys, a number of numpy among their values: as the first published diffusion checkpoints have them."""
    model, path = tiny(), tmp_path / "run.ckpt"
    with monkeypatch.context() as there:
        callback = foreign(there, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
        stored = {
            "callbacks": {callback: {"best_model_score": np.float32(1.5)}},
            "state_dict": model.network.state_dict(),
        }
        save(path, stored)
    checked(rewrite(path, (b"cnumpy._core.", b"cnumpy.core.")), model)


@pytest.mark.parametrize("value, old, new", [
    (np.float64(4.5), b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
    (np.linspace(4, 5, 3), b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
    (pathlib.PurePosixPath("runs/7"), b"cpathlib\n", b"cpathlib._local\n"),
    (pathlib.PurePosixPath("runs/7"), b"cpathlib\nPurePosixPath\n", b"cpathlib\nWindowsPath\n"),
])  # fmt: skip
def test_names_of_other_versions(tiny, tmp_path, value, old, new):
    model = tiny()
    path = save(tmp_path / "run.pt", {"state_dict": model.network.state_dict(), "value": value})
    checked(rewrite(path, (old, new)), model)


def test_weights_of_the_first_torch_and_of_python_2(tiny, tmp_path):
    """`_rebuild_tensor` without gradients and hooks; keys as bytes; an OrderedDict as a list of its entries."""
    model = tiny()
    state = dict(model.network.state_dict())
    path = save(tmp_path / "run.pt", {"state_dict": state})
    hooks = b"ccollections\nOrderedDict\n"
    keys = [
        (b"X" + len(key).to_bytes(4, "little") + key.encode(), b"U" + bytes([len(key)]) + key.encode()) for key in state
    ]
    checked(rewrite(path, *keys), model)
    assert hooks in path.read_bytes()


def test_a_parameter_with_attributes(tiny, tmp_path):
    model = tiny()
    state = dict(model.network.state_dict())
    for key, value in state.items():
        state[key] = torch.nn.Parameter(value) if "bias" in key else value.clone()
        state[key].is_bias = "bias" in key
    checked(save(tmp_path / "run.pt", {"model": state}), model)


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_weights_in_a_dictionary_of_a_class_of_its_own(tiny, tmp_path, container):
    model = tiny()
    stored = Config(model=Fields(model.network.state_dict()), epoch=3)
    checked(save(tmp_path / "run.pt", stored, container), model)


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_numbers_of_all_dtypes(tmp_path, container):
    tensors = {}
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
                  torch.int8, torch.uint8, torch.bool, torch.float8_e5m2, torch.uint16, torch.complex64):  # fmt: skip
        tensors[f"{dtype}"] = torch.arange(12).view(3, 4).to(dtype)
        tensors[f"{dtype} of a part, turned"] = torch.arange(12).view(3, 4).to(dtype)[1:, 1:].t()
    tensors["empty"] = torch.zeros(0)
    tensors["again"] = tensors["torch.float32"]
    found, _ = pc.read_checkpoint(save(tmp_path / "many.pt", tensors, container))
    assert set(found) == set(tensors)
    for key, value in tensors.items():
        assert found[key].dtype == value.dtype and found[key].stride() == value.stride()
        assert torch.equal(found[key].view(torch.uint8) if "float8" in key else found[key],
                           value.view(torch.uint8) if "float8" in key else value)  # fmt: skip
    assert found["again"] is found["torch.float32"]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("container", ["zip", "older"])
def test_files_of_bytes(tiny, tmp_path, container, protocol):
    """As modules of TransformerEngine keep their state, and torchtitan its own."""
    model = tiny()
    state = model.network.state_dict() | {"patch_blocks.0.mlp.w1._extra_state": io.BytesIO(b"abc")}
    stored = {"model": state, "train_state": {"losses": io.BytesIO()}}
    checked(save(tmp_path / "run.pt", stored, container, protocol), model)
    stored["model"]["patch_blocks.0.mlp.w1._extra_state"] = {"scale": torch.zeros(3), "recipe": None}
    checked(save(tmp_path / "run.pt", stored, container, protocol), model)
