// Video instructions: arithmetic on the bytes of a word (PTX ISA 9.7.18).
// nvcc -ptx -arch=compute_80 -o ptx/video.ptx video.cu
#include "suite.h"

#define DIFFERENCES(d, a, b) \
    FORM3(vabsdiff4_##d##_##a##_##b, "vabsdiff4." #d "." #a "." #b, r, r, r, r) \
    FORM3(vabsdiff4_##d##_##a##_##b##_sat, "vabsdiff4." #d "." #a "." #b ".sat", r, r, r, r) \
    FORM3(vabsdiff4_##d##_##a##_##b##_add, "vabsdiff4." #d "." #a "." #b ".add", r, r, r, r)
DIFFERENCES(u32, u32, u32) DIFFERENCES(u32, s32, u32) DIFFERENCES(s32, u32, s32) DIFFERENCES(s32, s32, s32)
