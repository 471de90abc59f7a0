// How latents lie in the cache, as kernels of `decode` distinguish it.
#pragma once

// int4 with a scale for each run of 512, int4 with smaller groups, bf16; on Hopper groups of 32 are apart from larger ones.
enum class Latents { Whole, Groups, Groups32, Bf16 };
