# SPDX-License-Identifier: Apache-2.0
"""Dense attention of one head with PyTorch's own scaled_dot_product_attention. It gives the output and no map."""
import torch
import torch.nn.functional as F

from peer import attention_errors, main, peer
from torch_map import tensor, versions


def attention(head, dtype):
    q, k, v = (tensor(head, name).to(dtype)[None, None] for name in "qkv")
    if hasattr(F, "scaled_dot_product_attention"):
        return lambda: F.scaled_dot_product_attention(q, k, v)[0, 0].float()
    return lambda: F._scaled_dot_product_attention(q, k, v)[0][0, 0].float()  # torch 1.13


@peer("torch SDPA fp32", check=attention_errors)
def sdpa_fp32(head, task):
    return attention(head, torch.float32)


@peer("torch SDPA bf16", check=attention_errors)
def sdpa_bf16(head, task):
    return attention(head, torch.bfloat16)


if __name__ == "__main__":
    main(versions)
