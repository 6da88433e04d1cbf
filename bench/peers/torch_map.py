# SPDX-License-Identifier: Apache-2.0
"""Row LSE and pooled attention map of one head with PyTorch, as one would write it, and as one would after tuning."""
import os

import torch
import torch.nn.functional as F

from peer import main, map_errors, peer

CELLS = 512


def tensor(head, name):
    raw = head.raw(name)
    if head.dtype == "bf16":
        return torch.from_numpy(raw.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(raw)


def block_of(head):
    return -(-head.tokens // CELLS)


def pooled(x, block, reduce):
    """Blocks along the last axis; the last one may be short."""
    whole = x.shape[-1] // block * block
    parts = [reduce(x[..., :whole].unflatten(-1, (-1, block)), -1)]
    if whole < x.shape[-1]:
        parts.append(reduce(x[..., whole:], -1).unsqueeze(-1))
    return torch.cat(parts, -1)


def pool_rows(x, block, reduce):
    return pooled(x.T, block, reduce).T


def areas(tokens, block):
    widths = pooled(torch.ones(tokens), block, torch.sum)
    return widths[:, None] * widths[None, :]


def several(task, one_head):
    """The work of `heads` heads, one after the other."""
    def run():
        results = [one_head() for _ in range(task.get("heads", 1))]
        return results[-1]
    return run


def naive(head, task, chunk, everything):
    """Chunks of rows: scores, softmax, block sums; everything: the row LSE and the block maxima, too."""
    q, k = tensor(head, "q").float(), tensor(head, "k").float()
    block = block_of(head)
    chunk = max(block, chunk // block * block)

    def run():
        means, tops, lses = [], [], []
        for first in range(0, head.tokens, chunk):
            scores = (q[first:first + chunk] @ k.T) * head.scale
            p = torch.softmax(scores, dim=-1)
            means.append(pool_rows(pooled(p, block, torch.sum), block, torch.sum))
            if everything:
                tops.append(pool_rows(pooled(p, block, torch.amax), block, torch.amax))
                lses.append(torch.logsumexp(scores, dim=-1))
        return {"block": block, "mean": torch.cat(means) / areas(head.tokens, block),
                "max": torch.cat(tops) if everything else None, "lse": torch.cat(lses) if everything else None}

    return several(task, run)


@peer("torch naive fp32 (mean only)", check=map_errors, chunk=[1024])
def naive_mean(head, task, chunk):
    return naive(head, task, chunk, everything=False)


@peer("torch naive fp32 (LSE, mean, max)", check=map_errors, chunk=[1024])
def naive_everything(head, task, chunk):
    return naive(head, task, chunk, everything=True)


def tuned(head, task, chunk, dtype):
    """Buffers made once, scale inside the product, exp in place, sums of tiles before normalising."""
    q, k = tensor(head, "q").to(dtype), tensor(head, "k").to(dtype)
    n, block = head.tokens, block_of(head)
    chunk = max(block, chunk // block * block)
    tiles = -(-n // block)

    def run():
        keys = F.pad(k, (0, 0, 0, tiles * block - n)).T
        scores = torch.empty(chunk, tiles * block)
        product = scores if dtype == torch.float32 else torch.empty(chunk, tiles * block, dtype=dtype)
        bias = torch.zeros(1, dtype=dtype)
        lse = torch.empty(n)
        mean, top = torch.empty(tiles, tiles), torch.empty(tiles, tiles)
        for first in range(0, n, chunk):
            rows = min(chunk, n - first)
            s, raw = scores[:rows], product[:rows]
            torch.addmm(bias, q[first:first + rows], keys, beta=0, alpha=head.scale, out=raw)
            raw[:, n:] = -torch.inf
            tile_top = raw.view(rows, tiles, block).amax(2).float()
            reference = tile_top.amax(1, keepdim=True)
            torch.sub(raw, reference, out=s).exp_()
            tile_sum = s.view(rows, tiles, block).sum(2)
            total = tile_sum.sum(1, keepdim=True)
            lse[first:first + rows] = (total.log() + reference)[:, 0]
            here = slice(first // block, -(-(first + rows) // block))
            mean[here] = pool_rows(tile_sum / total, block, torch.sum)
            top[here] = pool_rows((tile_top - reference).exp_() / total, block, torch.amax)
        return {"block": block, "mean": mean / areas(n, block), "max": top, "lse": lse}

    return several(task, run)


@peer("torch tuned fp32 (LSE, mean, max)", check=map_errors, chunk=[128, 256, 512])
def tuned_fp32(head, task, chunk):
    return tuned(head, task, chunk, torch.float32)


@peer("torch tuned bf16 (LSE, mean, max)", check=map_errors, chunk=[128, 256, 512])
def tuned_bf16(head, task, chunk):
    return tuned(head, task, chunk, torch.bfloat16)


def versions():
    onednn = torch.__config__.show().split("MKL-DNN v")[-1].split(" ")[0]
    capability = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "?")() if hasattr(torch.backends, "cpu") else "?"
    return {"torch": torch.__version__, "torch oneDNN": onednn, "torch elementwise": capability}


torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
torch.set_grad_enabled(False)
if __name__ == "__main__":
    main(versions)
