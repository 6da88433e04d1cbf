// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Before a loop over registers: unroll it wholly.
#if defined(__clang__)
#define SPARSIGHT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SPARSIGHT_UNROLL _Pragma("GCC unroll 32")
#endif
