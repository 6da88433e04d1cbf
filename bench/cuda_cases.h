// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sparsight::bench {

/// Registers the cases of the CUDA backend as "cuda/..." where a device can be used, and says in the context which one,
/// or why none.
void registerCuda();

}  // namespace sparsight::bench
