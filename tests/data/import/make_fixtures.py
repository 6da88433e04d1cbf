# SPDX-License-Identifier: Apache-2.0
"""Writes the files beside it with the libraries that users write theirs with: torch, safetensors, numpy, h5py.

    python make_fixtures.py      (made with torch 2.9.1, safetensors 0.8, numpy 2.4, h5py 3.16)

Every tensor is value(role, step, layer, head, token, channel), exact in bfloat16; 2 heads, 24 tokens (2 x 3 x 4), 8
channels. The tests know the same function. hostile_*.pt would run a command when loaded with torch or pickle.
"""

import os
import pickle
import zipfile

import h5py
import numpy as np
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
HEADS, TOKENS, CHANNELS = 2, 24, 8


def value(role, step=0, layer=0):
    """[heads, tokens, channels] float32; role 0 q, 1 k, 2 v."""
    h, n, c = np.meshgrid(np.arange(HEADS), np.arange(TOKENS), np.arange(CHANNELS), indexing="ij")
    return (((role * 7 + step * 11 + layer * 13 + h * 5 + n * 3 + c) % 64 - 32) / 16).astype("f4")


def path(*names):
    target = os.path.join(HERE, *names)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    return target


def numpy_files():
    q, k, v = (value(r) for r in range(3))
    np.savez(path("plain.npz"), q=q, k=k, v=v)
    np.savez_compressed(path("deflated.npz"), q=q.astype("f2"), k=k.astype("f2"), v=v.astype("f2"))
    for name, array in zip("qkv", (q, k, v)):
        # One file each: token-major in Fortran order, big-endian, and double.
        np.save(path("npy", f"{name}_layer2.npy"), np.asfortranarray(array.transpose(1, 0, 2)).astype(">f4"))
    bf16 = [(a.view("u4") >> 16).astype("u2") for a in (q, k, v)]
    np.savez(path("raw16.npz"), q=bf16[0].view("V2"), k=bf16[1].view("V2"), v=bf16[2].view("V2"))
    with open(path("version2.npy"), "wb") as file:
        np.lib.format.write_array(file, q.astype("f8"), version=(2, 0))


def safetensors_files():
    tensors = {}
    for step in (2, 12):
        for branch in ("cond", "uncond"):
            for role, name in enumerate("qkv"):
                key = f"step_{step:04d}/{branch}/layer_007/self/{name}"
                tensors[key] = torch.from_numpy(value(role, step, 7 + (branch == "uncond"))).to(torch.bfloat16)
    save_file(tensors, path("keys.safetensors"), metadata={"grid": "2,3,4", "family": "wan2.1", "num_layers": "30"})
    mixed = {name: torch.from_numpy(value(role)) for role, name in enumerate("qkv")}
    mixed["k"] = mixed["k"].to(torch.float16)
    mixed["ids"] = torch.arange(5)
    save_file(mixed, path("mixed.safetensors"))


def torch_files():
    def tensors(step, layer, dtype):
        return {name: torch.from_numpy(value(r, step, layer))[None].to(dtype) for r, name in enumerate("qkv")}

    # SVG's helper: a tensor permuted after the projection keeps its BSHD storage.
    kept = {name: t.transpose(1, 2).contiguous().transpose(1, 2) for name, t in tensors(0, 3, torch.float16).items()}
    torch.save({**kept, "timestep": torch.tensor(951), "layer_idx": 3}, path("svg", "sparse_qkv_layer3_ts951.pt"))
    for step, timestep in enumerate((999, 951)):  # SVOO: no v, the folder is the timestep
        data = tensors(step, 4, torch.bfloat16)
        torch.save(
            {"q": data["q"], "k": data["k"], "timestep": float(timestep), "layer_idx": 4},
            path("svoo", f"step{timestep}", "layer4.pt"),
        )
    # A slice of a longer storage, a parameter, nesting, other values around it, other protocols.
    t = tensors(0, 0, torch.float32)
    long = torch.cat([torch.full((1, 2, 5, 8), 9.0), t["q"]], dim=2)
    nested = {"layer0": {"q": long[:, :, 5:], "k": torch.nn.Parameter(t["k"]), "v": t["v"].double()}, "dtype": torch.float16,
              "list": [1, 2.5, None, True, torch.Size([1, 2])], "name": "demo"}
    for protocol in (2, 3, 4, 5):
        torch.save(nested, path(f"protocol{protocol}.pt"), pickle_protocol=protocol)
    torch.save(t, path("legacy.pt"), _use_new_zipfile_serialization=False)
    model = torch.nn.Linear(2, 2)
    torch.save(model, path("module.pt"))  # a whole object: refused by name


class Bomb:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def hostile_files():
    marker = "touch /tmp/sparsight-hostile-pickle-ran"
    for name, payload in (("system", Bomb(os.system, marker)), ("eval", Bomb(eval, f"__import__('os').system('{marker}')"))):
        with zipfile.ZipFile(path(f"hostile_{name}.pt"), "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps({"q": payload}, protocol=2))
            file.writestr("archive/version", "3\n")


def hdf5_files():
    with h5py.File(path("foreign.h5"), "w") as file:
        for layer in range(2):
            group = file.create_group(f"run/block{layer}")
            for role, name in enumerate(("query", "key", "value")):
                array = value(role, 0, layer).transpose(1, 0, 2)[None]  # [B, N, H, D]
                group.create_dataset(name, data=array, chunks=(1, 7, 2, 4), compression="gzip", shuffle=True)
    with h5py.File(path("stacked.h5"), "w") as file:
        for role, name in enumerate(("Q", "K", "V")):
            data = np.stack([np.stack([value(role, s, l) for l in range(3)]) for s in range(2)])
            file[name] = data.astype(">f2")  # [S, L, H, N, D]
        file["notes"] = np.arange(4)
        file.attrs["grid"] = [2, 3, 4]


def sides():
    """Every third query with its tokens, and which keys count, from each library."""
    rows, counts = np.arange(0, TOKENS, 3), np.arange(TOKENS) < TOKENS - 4
    arrays = {"q": value(0)[:, rows], "k": value(1), "v": value(2)}
    np.savez_compressed(path("sides.npz"), **arrays, q_rows=rows.astype("i4"), key_valid=counts)
    with h5py.File(path("sides.h5"), "w") as file:
        for name, array in {**arrays, "q_rows": rows, "key_valid": counts}.items():
            file[f"step_2/layer_1/{name}"] = array
    tensors = {name: torch.from_numpy(array)[None].half() for name, array in arrays.items()}
    added = torch.zeros(1, 1, 1, TOKENS, dtype=torch.float16).masked_fill(~torch.from_numpy(counts), -torch.inf)
    save_file({**{n: t.contiguous() for n, t in tensors.items()}, "q_rows": torch.from_numpy(rows), "attn_mask": added},
              path("sides.safetensors"))
    tensors["attn_mask"] = torch.from_numpy(counts)[None, None, None].expand(1, 1, len(rows), TOKENS)
    torch.save({**tensors, "q_rows": torch.from_numpy(rows)}, path("sides.pt"))


if __name__ == "__main__":
    numpy_files()
    safetensors_files()
    torch_files()
    hostile_files()
    hdf5_files()
    sides()
