// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sparsight::bench {

/// Registers every benchmark under its literal name.
void registerAll();

}  // namespace sparsight::bench
