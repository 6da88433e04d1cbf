// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sparsight {

/// `sparsight render FILE --view ... --out ...`: a view as PNG, SVG or PDF without display or window, with the raster
/// painter. Returns the exit code of the command line contract; throws only what is a bug.
int runRender(int argc, char** argv);

}  // namespace sparsight
