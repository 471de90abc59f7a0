// How latents lie in the cache, as kernels of `decode` distinguish it.
#pragma once

// int4 with a scale for each run of 512, int4 with smaller groups, bf16.
enum class Latents { Whole, Groups, Bf16 };
