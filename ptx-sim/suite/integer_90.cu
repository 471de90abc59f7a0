// Packed integer arithmetic of compute capability 9.0 (PTX ISA 9.7.1.1, 9.7.1.12-13).
// nvcc -ptx -arch=compute_90a -o ptx/integer_90.ptx integer_90.cu
#include "suite.h"

FORM2(add_u16x2, "add.u16x2", r, r, r) FORM2(add_s16x2, "add.s16x2", r, r, r) FORM2(min_u16x2, "min.u16x2", r, r, r)
FORM2(min_s16x2, "min.s16x2", r, r, r) FORM2(max_u16x2, "max.u16x2", r, r, r) FORM2(max_s16x2, "max.s16x2", r, r, r)
FORM2(max_relu_s32, "max.relu.s32", r, r, r) FORM2(min_relu_s16x2, "min.relu.s16x2", r, r, r)
