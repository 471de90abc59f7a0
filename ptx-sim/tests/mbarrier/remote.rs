//! Objects in other blocks of the cluster.

use ptx_sim::fault::Fault;

use crate::kernels::Kernel;
use crate::{kernel, mbarrier};

/// Two blocks of a warp. Block 0 has the object, for `count` arrivals; `%r3` is its address in both, `%d3` the generic one,
/// and `%r4` that of a word beside it. Block 1 executes `far`, block 0 `near`; then both have exited in order.
fn pair(count: u32, far: &str, near: &str) -> String {
    format!(
        "setp.eq.u32 %p7, %r0, 0;
        setp.eq.u32 %p6, %r1, 0;
        @%p7 mbarrier.init.shared.b64 [s], {count};
        @%p7 fence.mbarrier_init.release.cluster;
        barrier.cluster.arrive.relaxed.aligned;
        barrier.cluster.wait.acquire.aligned;
        mov.u32 %r2, 0;
        mapa.shared::cluster.u32 %r3, %r2, 0;
        cvta.shared::cluster.u64 %d2, %r2;
        cvta.shared.u64 %d2, s;
        mapa.u64 %d3, %d2, 0;
        mov.u32 %r2, 64;
        mapa.shared::cluster.u32 %r4, %r2, 0;
        @%p6 bra NEAR;
        {far}
        bra END;
        NEAR: {near}
        END: barrier.cluster.arrive.aligned;
        barrier.cluster.wait.aligned;"
    )
    .replace("        cvta.shared::cluster.u64 %d2, %r2;\n", "")
}

fn two(body: &str) -> Kernel<'_> {
    Kernel { blocks: 2, cluster: 2, ..kernel(body, 32) }
}

const WAIT: &str = "W: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p1, [s], 0;\n@!%p1 bra W;\n\
                    ld.shared.u32 %r5, [s+64]; /* read */\nst.global.u32 [%d1], %r5;";

#[test]
fn arrivals_from_another_block_release_what_was_before_them() {
    let arrivals = [
        "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3];",
        "mbarrier.arrive.release.cluster.b64 _, [%d3];",
        "mbarrier.arrive.shared::cluster.b64 _, [%r3], 1;",
        "setp.eq.u32 %p5, %r0, 0;\n@%p5 mbarrier.arrive.shared::cluster.b64 _, [%r3];\n\
         @!%p5 mbarrier.arrive_drop.shared::cluster.b64 _, [%r3];",
        "fence.acq_rel.cluster;\nmbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%r3];",
        "mbarrier.arrive.expect_tx.release.cluster.b64 _, [%d3], 16;\n\
         mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r3], 16;",
        "mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [%r3], 16;\n\
         mbarrier.arrive.shared::cluster.b64 _, [%r3];\nmbarrier.complete_tx.shared::cluster.b64 [%r3], 16;",
    ];
    for arrive in arrivals {
        let far = format!("st.shared::cluster.u32 [%r4], 7;\n{arrive}");
        assert_eq!(two(&pair(32, &far, WAIT)).clean().output[0], 7, "{arrive}");
    }
}

#[test]
fn relaxed_arrivals_from_another_block_release_nothing() {
    for fence in ["", "fence.acq_rel.cta;\n"] {
        let far = format!(
            "st.shared::cluster.u32 [%r4], 7;\n{fence}mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%r3];"
        );
        let fault = two(&pair(32, &far, WAIT)).finds(0, 0, "/* read */");
        assert!(matches!(fault, Fault::Race { .. }), "{fence}: {fault}");
    }
}

#[test]
fn only_arrivals_and_bytes_are_for_objects_of_other_blocks() {
    let bad = [
        ("mbarrier.arrive.b64 %d4, [%d3]; /* bad */", "returns no state"),
        ("mbarrier.try_wait.parity.b64 %p1, [%d3], 0; /* bad */", "only arrivals and counts of bytes"),
        ("mbarrier.init.b64 [%d3], 1; /* bad */", "only arrivals and counts of bytes"),
        ("mbarrier.inval.b64 [%d3]; /* bad */", "only arrivals and counts of bytes"),
        ("mbarrier.arrive.noComplete.b64 %d4, [%d3], 1; /* bad */", "only arrivals and counts of bytes"),
        ("cp.async.mbarrier.arrive.b64 [%d3]; /* bad */", "only arrivals and counts of bytes"),
    ];
    for (far, words) in bad {
        let fault = two(&pair(32, far, "nanosleep.u32 1;")).finds(1, 0, "/* bad */");
        assert!(mbarrier(&fault).contains(words), "{far}: {fault}");
    }
    let own = "mbarrier.arrive.shared::cta.b64 _, [%r3]; /* bad */";
    let fault = two(&pair(32, own, "nanosleep.u32 1;")).finds(1, 0, "/* bad */");
    assert!(matches!(&fault, Fault::Trap(why) if why.contains("not in `.shared::cta`")), "{fault}");
}

#[test]
fn an_object_of_another_block_is_initialised_before_its_use() {
    let arrive = "mbarrier.arrive.shared::cluster.b64 _, [%r3]; /* use */";
    let body = pair(32, arrive, WAIT).replace("ld.shared.u32 %r5, [s+64]; /* read */", "mov.u32 %r5, 1;");
    two(&body).clean();
    // Without the fence the relaxed barrier orders nothing.
    let unfenced = body.replace("@%p7 fence.mbarrier_init.release.cluster;", "nanosleep.u32 0;");
    let fault = two(&unfenced).finds(1, 0, "/* use */");
    assert!(mbarrier(&fault).contains("without a barrier between"), "{fault}");
    two(&unfenced.replace("arrive.relaxed.aligned", "arrive.release.aligned")).clean();
}

#[test]
fn a_deadlock_names_the_blocks_that_wait() {
    let why = crate::deadlock(two(&pair(33, "mbarrier.arrive.shared::cluster.b64 _, [%r3];", WAIT)));
    assert!(why.starts_with("2 of 2 warps wait; 1 warp of block (0,0,0) at `mbarrier.try_wait"), "{why}");
    assert!(
        why.contains("where 1 of 33 arrivals are missing; 1 warp of block (1,0,0) at `barrier.cluster.wait"),
        "{why}"
    );
}
