// How the tokens of a split are taken.
#pragma once

#include "../params.h"

// Tiles begin where pages may; what is before the split is skipped.
__device__ inline unsigned tiles_begin(const DecodeSplit &split) { return split.first & ~7u; }
