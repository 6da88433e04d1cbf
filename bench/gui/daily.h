// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <QString>

namespace sparsight::bench {

/// What a user does every day besides looking at a map: opening, closing and opening another trace, a profile, results;
/// layouts, views, theme and size; dialogs; runs of the methods and their end; a comparison; walking through heads.
/// Handlers over 4 ms show here. 0, or 1 when something did not come to its end.
int playDaily(const QString& trace, const QString& folder);

}  // namespace sparsight::bench
