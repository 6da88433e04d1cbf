// SPDX-License-Identifier: Apache-2.0
#include "ui/application.h"

int main(int argc, char** argv) { return sparsight::runGui(argc, argv); }
