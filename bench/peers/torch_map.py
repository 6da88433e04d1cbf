# SPDX-License-Identifier: Apache-2.0
"""Row LSE and pooled attention map of one head with PyTorch, as one would write it, and as one would after tuning."""
import math
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


LOG2E = math.log2(math.e)


def tuned(head, task, chunk, dtype, product="torch.addmm"):
    """Buffers made once, scale inside the product, powers of two in place, sums of tiles before normalising.

    exp2 because torch's exp goes to MKL, which is many times slower on CPUs of others than Intel; amax on fp32 because
    it is slow on bf16."""
    q, k = tensor(head, "q").to(dtype), tensor(head, "k").to(dtype)
    n, block = head.tokens, block_of(head)
    chunk = max(block, chunk // block * block)
    tiles = -(-n // block)
    scale = head.scale * LOG2E
    if product == "oneDNN":  # its fp32 product uses AVX-512 where MKL's does not; the scale goes into q
        q = q * scale

    def run():
        keys = F.pad(k, (0, 0, 0, tiles * block - n))
        scores = torch.empty(chunk, tiles * block)
        narrow = torch.empty(chunk, tiles * block, dtype=dtype) if dtype != torch.float32 else scores
        bias = torch.zeros(1, dtype=dtype)
        lse = torch.empty(n)
        mean, top = torch.empty(tiles, tiles), torch.empty(tiles, tiles)
        for first in range(0, n, chunk):
            rows = min(chunk, n - first)
            s = scores[:rows]
            if product == "oneDNN":
                s = torch.ops.mkldnn._linear_pointwise(q[first:first + rows], keys, None, "none", [], "")
            else:
                torch.addmm(bias, q[first:first + rows], keys.T, beta=0, alpha=scale, out=narrow[:rows])
                if narrow is not scores:
                    s.copy_(narrow[:rows])
            s[:, n:] = -torch.inf
            tile_top = s.view(rows, tiles, block).amax(2)
            reference = tile_top.amax(1, keepdim=True)
            s.sub_(reference).exp2_()
            tile_sum = s.view(rows, tiles, block).sum(2)
            total = tile_sum.sum(1, keepdim=True)
            lse[first:first + rows] = ((total.log2() + reference) / LOG2E)[:, 0]
            here = slice(first // block, -(-(first + rows) // block))
            mean[here] = pool_rows(tile_sum / total, block, torch.sum)
            top[here] = pool_rows((tile_top - reference).exp2_() / total, block, torch.amax)
        return {"block": block, "mean": mean / areas(n, block), "max": top, "lse": lse}

    return several(task, run)


PRODUCTS = ["torch.addmm"] + (["oneDNN"] if hasattr(torch.ops.mkldnn, "_linear_pointwise") else [])


@peer("torch tuned fp32 (LSE, mean, max)", check=map_errors, chunk=[64, 128, 256], product=PRODUCTS)
def tuned_fp32(head, task, chunk, product):
    return tuned(head, task, chunk, torch.float32, product)


@peer("torch tuned bf16 (LSE, mean, max)", check=map_errors, chunk=[64, 128, 256])
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
