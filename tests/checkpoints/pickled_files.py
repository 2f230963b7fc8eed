"""Files of torch.save with other things beside the weights, and classes of programs that are not installed."""

import io
import sys
import types
import zipfile

import torch


def save(path, stored, container="zip", protocol=2):
    torch.save(stored, path, pickle_protocol=protocol, _use_new_zipfile_serialization=container == "zip")
    return path


def rewrite(path, *replaced):
    """Other bytes in the pickle of a zip file, such as the names that another version has for the same things."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            for old, new in replaced if name.endswith("data.pkl") else ():
                assert old in data
                data = data.replace(old, new)
            archive.writestr(name, data)
    path.write_bytes(file.getvalue())
    return path


def foreign(monkeypatch, name, *bases, **content):
    """A class of another package, which can be pickled by its name."""
    module, _, kind = name.rpartition(".")
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        package = ".".join(parts[:count])
        if package not in sys.modules:
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    made = type(kind, bases, {"__module__": module, **content})
    monkeypatch.setattr(sys.modules[module], kind, made, raising=False)
    return made
