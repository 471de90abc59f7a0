// min and max of f32 with `.xorsign.abs` (PTX ISA 9.7.3.11-12); they need compute capability 8.6.
// nvcc -ptx -arch=compute_90a -o ptx/float_90.ptx float_90.cu
#include "suite.h"

FORM2(min_xorsign_abs_f32, "min.xorsign.abs.f32", r, r, r) FORM2(max_xorsign_abs_f32, "max.xorsign.abs.f32", r, r, r)
FORM2(max_NaN_xorsign_abs_f32, "max.NaN.xorsign.abs.f32", r, r, r)
