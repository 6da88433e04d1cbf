// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace sparsight {

/// `sparsight --self-test`: opens every view on the demo, with both painters where an OpenGL context can be made;
/// prints renderer, OpenGL version and devices. Returns 0 if each view painted something, 1 if not, 3 to 5 for errors.
int runSelfTest(int argc, char** argv);

}  // namespace sparsight
