// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sparsight {

/// The GUI program: the workbench, `render FILE ...` and `--self-test`, as the command line contract says. Returns the
/// exit code; never throws.
int runGui(int argc, char** argv);

}  // namespace sparsight
