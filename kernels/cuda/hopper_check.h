// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace sparsight::cuda {

/// Why the Hopper kernels are not used on the device, which has compute capability 9.0; empty: they are. The first call
/// in the process runs small cases on them and on the portable kernels and compares; later ones return what that found.
/// Thread-safe. Needs the device to be selected, and nothing else of the process on it during the first call: after a
/// fault the device is reset, so that the other kernels can go on.
[[nodiscard]] std::string whyNotHopper();

}  // namespace sparsight::cuda
