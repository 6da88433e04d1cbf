# SPDX-License-Identifier: Apache-2.0
"""Q, K and V of one head after the other from an HDF5 trace (contiguous datasets): with h5py, and as a plain read."""
import os

import h5py
import numpy as np

from peer import main, peer


def open_call(head):
    file = h5py.File(os.path.join(head.folder, "trace.h5"), "r")
    found = {}

    def visit(path, node):
        if isinstance(node, h5py.Dataset):
            found[path.rsplit("/", 1)[-1]] = node

    file.visititems(visit)
    return [found[name] for name in "qkv"]


def in_turn(count, read):
    state = {"next": 0}

    def run():
        state["next"] = (state["next"] + 1) % count
        read(state["next"])

    return run


@peer("h5py, new arrays")
def h5py_new(head, task):
    datasets = open_call(head)
    return in_turn(len(datasets[0]), lambda i: [dataset[i] for dataset in datasets])


@peer("h5py, into given arrays")
def h5py_given(head, task):
    datasets = open_call(head)
    arrays = [np.ones(dataset.shape[1:], dataset.dtype) for dataset in datasets]
    return in_turn(len(datasets[0]),
                   lambda i: [d.read_direct(a, np.s_[i]) for d, a in zip(datasets, arrays)])


def plain(head, new):
    datasets = open_call(head)
    offsets = [dataset.id.get_offset() for dataset in datasets]
    if None in offsets:
        raise ValueError("the datasets are not contiguous")
    size = datasets[0][0].nbytes
    count = len(datasets[0])
    file = os.open(os.path.join(head.folder, "trace.h5"), os.O_RDONLY)
    given = [np.ones(size, np.uint8) for _ in offsets]

    def read(i):
        for offset, array in zip(offsets, given):
            target = np.empty(size, np.uint8) if new else array
            done = 0
            while done < size:
                done += os.preadv(file, [memoryview(target)[done:]], offset + i * size + done)

    return in_turn(count, read)


@peer("plain read, into given memory")
def plain_given(head, task):
    return plain(head, new=False)


@peer("plain read, into new memory")
def plain_new(head, task):
    return plain(head, new=True)


def versions():
    return {"h5py": h5py.__version__, "HDF5 of h5py": h5py.version.hdf5_version}


if __name__ == "__main__":
    main(versions, min_seconds=0.2, warm=False)
