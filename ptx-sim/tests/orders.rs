//! The parts of an opcode in orders that the ISA does not print. ptxas takes nearly any (this repository's
//! `findings/ptxas-takes-opcode-parts-in-any-order.sh`), and libraries make use of it.

mod kernels;

use kernels::Kernel;

/// What the body leaves in `%r20`, by thread.
fn results(body: &str) -> Vec<u32> {
    let body = format!(
        "setp.gt.u32 %p0, %r0, 9;
        mul.lo.u32 %r2, %r0, 0x01030507;
        mov.u64 %d4, 77;
        shl.b32 %r3, %r0, 4;
        mov.u32 %r4, s;
        add.u32 %r4, %r4, %r3;
        st.shared.v4.u32 [%r4], {{%r2, %r0, %r3, %r2}};
        bar.warp.sync -1;
        mov.f32 %f0, 0f3F800000;
        mov.b32 %r21, 0;
        mov.b32 %r22, 0;
        mov.b32 %r23, 0;
        {body}
        xor.b32 %r20, %r20, %r21;
        xor.b32 %r22, %r22, %r23;
        xor.b32 %r20, %r20, %r22;
        mad.wide.u32 %d3, %r0, 4, %d1;
        st.global.u32 [%d3], %r20;"
    );
    let ran = Kernel { body: &body, output: 32, ..Kernel::default() }.clean();
    ran.output
}

#[test]
fn parts_of_opcodes_may_stand_in_other_orders_than_the_printed_one() {
    for (printed, others, operands) in [
        ("vote.sync.ballot.b32", &["vote.ballot.sync.b32", "vote.ballot.b32.sync"][..], "%r20, %p0, -1;"),
        ("shfl.sync.idx.b32", &["shfl.idx.sync.b32", "shfl.b32.idx.sync"], "%r20, %r2, 5, 31, -1;"),
        ("match.all.sync.b64", &["match.sync.all.b64"], "%r20, %d4, -1;"),
        ("match.any.sync.b32", &["match.sync.any.b32"], "%r20, %r3, -1;"),
        ("redux.sync.add.u32", &["redux.add.sync.u32"], "%r20, %r2, -1;"),
        (
            "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16",
            &[
                "ldmatrix.sync.aligned.x4.trans.m8n8.shared.b16",
                "ldmatrix.sync.aligned.x4.m8n8.trans.shared.b16",
                "ldmatrix.x4.sync.aligned.m8n8.shared.trans.b16",
            ],
            "{%r20, %r21, %r22, %r23}, [%r4];",
        ),
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
            &[
                "mma.m16n8k16.sync.aligned.row.col.f32.bf16.bf16.f32",
                "mma.sync.aligned.row.col.m16n8k16.f32.bf16.bf16.f32",
            ],
            "{%f1, %f2, %f3, %f4}, {%r2, %r3, %r0, %r2}, {%r3, %r2}, {%f0, %f0, %f0, %f0};\nmov.b32 %r20, %f2;",
        ),
        ("max.relu.s32", &["max.s32.relu"], "%r20, %r2, -7;"),
        ("min.relu.s16x2", &["min.s16x2.relu"], "%r20, %r2, %r3;"),
    ] {
        let expected = results(&format!("{printed} {operands}"));
        assert!(expected.iter().any(|result| *result != 0), "{printed}");
        for other in others {
            assert_eq!(results(&format!("{other} {operands}")), expected, "{other}");
        }
    }
    // `stmatrix` leaves it in memory.
    let stored = ["stmatrix.sync.aligned.m8n8.x2.trans.shared.b16", "stmatrix.sync.aligned.x2.trans.m8n8.shared.b16"]
        .map(|opcode| {
            results(&format!("{opcode} [%r4], {{%r2, %r3}};\nbar.warp.sync -1;\nld.shared.u32 %r20, [%r4];"))
        });
    assert_eq!(stored[0], stored[1]);
}
