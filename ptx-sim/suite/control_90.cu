// griddepcontrol (PTX ISA 9.7.13.13): without a dependent launch both forms go on at once.
// nvcc -ptx -arch=compute_90a -o ptx/control_90.ptx control_90.cu
#include "suite.h"

KERNEL(griddepcontrol) {
    ROWS(1, 1);
    asm volatile("griddepcontrol.wait;" ::: "memory");
    out[0] = in[0];
    asm volatile("griddepcontrol.launch_dependents;");
}
