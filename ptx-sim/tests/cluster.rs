//! Clusters: their barrier, distributed shared memory, and what goes wrong with both.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::{Fault, Other};
use ptx_sim::meter::{Class, Path};

const BARRIER: &str = "barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;";

/// One cluster of so many blocks of a warp each. `%r2` is the address of the thread's word in the own block, `%r3` in the
/// block before it, the last one for the first; `%p1` holds in block 1, and `%d2` is the thread's word of the output.
fn cluster(blocks: u32, body: &str) -> String {
    format!(
        "shl.b32 %r2, %r0, 2;
        add.u32 %r4, %r1, {};
        rem.u32 %r4, %r4, {blocks};
        mapa.shared::cluster.u32 %r3, %r2, %r4;
        setp.eq.u32 %p1, %r1, 1;
        mad.lo.u32 %r5, %r1, 32, %r0;
        mul.wide.u32 %d2, %r5, 4;
        add.s64 %d2, %d1, %d2;
        {}",
        blocks - 1,
        body.replace("BARRIER", BARRIER)
    )
}

fn kernel(blocks: u32, body: &str) -> Kernel<'_> {
    Kernel { body, blocks, cluster: blocks, output: 1024, ..Kernel::default() }
}

fn finds(blocks: u32, body: &str, block: u32, thread: u32, marker: &str) -> Fault {
    kernel(blocks, &cluster(blocks, body)).finds(block, thread, marker)
}

fn clean(blocks: u32, body: &str) -> Vec<u32> {
    kernel(blocks, &cluster(blocks, body)).clean().output
}

fn trap(fault: Fault) -> String {
    match fault {
        Fault::Trap(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn blocks_read_and_write_each_others_shared_memory() {
    let body = "mad.lo.u32 %r6, %r1, 1000, %r0;
        st.shared.u32 [%r2], %r6;
        BARRIER
        ld.shared::cluster.u32 %r7, [%r3];
        add.u32 %r7, %r7, 5;
        st.shared::cluster.u32 [%r3+128], %r7;
        barrier.cluster.arrive.release;
        barrier.cluster.wait.acquire;
        ld.shared.u32 %r8, [%r2+128];
        st.global.u32 [%d2], %r8;";
    for blocks in [1, 2, 3, 8] {
        let output = clean(blocks, body);
        // Block b writes back to the block that it has read.
        let wanted: Vec<u32> = (0..blocks).flat_map(|block| (0..32).map(move |lane| 1000 * block + lane + 5)).collect();
        assert_eq!(output[..wanted.len()], wanted, "{blocks} blocks");
    }
}

/// Remote accesses of every width and type, through `.shared::cluster` and generic addresses, against values computed here.
#[test]
fn remote_accesses_have_every_width() {
    let types = [("u8", "%r8", 1), ("s8", "%r8", 1), ("b16", "%h2", 2), ("s16", "%r8", 2), ("b32", "%r8", 4)];
    let types = types.into_iter().chain([("b64", "%d6", 8), ("f64", "%d6", 8), ("s32", "%d6", 4)]);
    let vectors = [("v2.b16", "{%h2, %h3}", 4), ("v2.b32", "{%r8, %r9}", 8), ("v4.b32", "{%r8, %r9, %r10, %r11}", 16)];
    let vectors = vectors.into_iter().chain([("v2.b64", "{%d6, %d7}", 16), ("v4.u8", "{%r8, %r9, %r10, %r11}", 4)]);
    for (ty, registers, bytes) in types.chain(vectors) {
        for (space, at) in [(".shared::cluster", "%r12"), ("", "%d8")] {
            let body = format!(
                "st.shared.v4.u32 [s], {{0x83828180, 0x87868584, 0x8b8a8988, 0x8f8e8d8c}};
                st.shared.v4.u32 [s+16], {{0, 0, 0, 0}};
                BARRIER
                mapa.shared::cluster.u32 %r12, s, %r4;
                cvt.u64.u32 %d8, %r12;
                cvta.shared::cluster.u64 %d8, %d8;
                setp.eq.u32 %p2, %r0, 0;
                @%p2 ld{space}.{ty} {registers}, [{at}];
                @%p2 st{space}.{ty} [{at}+16], {registers};
                BARRIER
                ld.shared.v4.u32 {{%r8, %r9, %r10, %r11}}, [s+16];
                st.global.u32 [%d2], %r8;
                st.global.u32 [%d2+1024], %r9;
                st.global.u32 [%d2+2048], %r10;
                st.global.u32 [%d2+3072], %r11;"
            );
            let output = clean(2, &body);
            let stored: Vec<u8> = (0..4).flat_map(|word| output[256 * word].to_le_bytes()).collect();
            let wanted: Vec<u8> = (0..16).map(|byte| if byte < bytes { 0x80 + byte } else { 0 }).collect();
            assert_eq!(stored, wanted, "{space}.{ty}");
        }
    }
}

#[test]
fn atomics_of_all_blocks_meet_in_one() {
    let body = "setp.eq.u32 %p2, %r5, 0;
        @%p2 st.shared.v4.u32 [s], {0, 0xffffffff, 0, 0};
        @%p2 st.shared.u64 [s+16], 0;
        BARRIER
        mapa.shared::cluster.u32 %r6, s, 0;
        cvt.u64.u32 %d3, %r6;
        cvta.shared::cluster.u64 %d3, %d3;
        atom.shared::cluster.add.u32 %r7, [%r6], 3;
        red.relaxed.cluster.shared::cluster.min.u32 [%r6+4], %r5;
        atom.acq_rel.cluster.max.u32 %r8, [%d3+8], %r5;
        shl.b32 %r9, 1, %r1;
        red.or.b32 [%d3+12], %r9;
        cvt.u64.u32 %d4, %r5;
        atom.shared::cluster.add.u64 %d5, [%r6+16], %d4;
        BARRIER
        st.global.u32 [%d2], %r7;
        @%p2 ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [s];
        @%p2 ld.shared.u32 %r10, [s+16];
        @%p2 st.global.v4.u32 [%d2+2048], {%r6, %r7, %r8, %r9};
        @%p2 st.global.u32 [%d2+2064], %r10;";
    let output = clean(4, body);
    assert_eq!(output[512..517], [3 * 128, 0, 127, 0b1111, 127 * 64]);
    let mut tickets = output[..128].to_vec();
    tickets.sort_unstable();
    assert_eq!(tickets, (0..128).map(|i| 3 * i).collect::<Vec<_>>());
}

#[test]
fn a_lock_in_another_block_is_taken_by_compare_and_swap() {
    let body = "setp.eq.u32 %p2, %r0, 0;
        setp.eq.u32 %p3, %r5, 0;
        @%p3 st.shared.v2.u32 [s], {0, 0};
        BARRIER
        mapa.shared::cluster.u32 %r6, s, 0;
        @!%p2 bra DONE;
        TRY: atom.shared::cluster.cas.b32 %r7, [%r6], 0, 1;
        setp.ne.u32 %p4, %r7, 0;
        @%p4 bra TRY;
        ld.relaxed.cluster.shared::cluster.u32 %r8, [%r6+4];
        add.u32 %r8, %r8, 1;
        st.relaxed.cluster.shared::cluster.u32 [%r6+4], %r8;
        atom.shared::cluster.exch.b32 %r7, [%r6], 0;
        DONE: BARRIER
        @%p3 ld.shared.u32 %r8, [s+4];
        @%p3 st.global.u32 [%d2], %r8;";
    assert_eq!(clean(8, body)[0], 8);
}

/// `mapa`, `getctarank`, `isspacep` and `cvta` for every rank, own and others', as shared and as generic addresses.
#[test]
fn addresses_tell_their_block() {
    let body = "mov.u32 %r6, 0;
        mov.u32 %r10, 0;
        LOOP: mapa.shared::cluster.u32 %r7, s+20, %r6;
        getctarank.shared::cluster.u32 %r8, %r7;
        cvt.u64.u32 %d3, %r7;
        cvta.shared::cluster.u64 %d3, %d3;
        getctarank.u64 %r9, %d3;
        mov.u32 %r12, s;
        cvt.u64.u32 %d4, %r12;
        cvta.shared.u64 %d4, %d4;
        mapa.u64 %d5, %d4, %r6;
        add.s64 %d5, %d5, 20;
        setp.ne.u64 %p2, %d5, %d3;
        @%p2 trap;
        cvta.to.shared::cluster.u64 %d6, %d5;
        cvt.u32.u64 %r13, %d6;
        setp.ne.u32 %p2, %r13, %r7;
        @%p2 trap;
        cvt.u64.u32 %d7, %r7;
        mapa.shared::cluster.u64 %d7, %d7, %r6;
        getctarank.shared::cluster.u64 %r14, %d7;
        setp.ne.u32 %p2, %r14, %r6;
        @%p2 trap;
        isspacep.shared::cluster %p3, %d3;
        isspacep.shared::cta %p4, %d3;
        isspacep.shared %p5, %d3;
        isspacep.global %p6, %d3;
        selp.u32 %r11, 1, 0, %p3;
        @%p4 or.b32 %r11, %r11, 2;
        @%p5 or.b32 %r11, %r11, 4;
        @%p6 or.b32 %r11, %r11, 8;
        mad.lo.u32 %r11, %r8, 16, %r11;
        mad.lo.u32 %r11, %r9, 256, %r11;
        getctarank.shared::cluster.u32 %r12, s+4;
        mad.lo.u32 %r11, %r12, 4096, %r11;
        mad.lo.u32 %r12, %r1, 4, %r6;
        mul.wide.u32 %d7, %r12, 4;
        add.s64 %d7, %d1, %d7;
        st.global.u32 [%d7], %r11;
        add.u32 %r6, %r6, 1;
        setp.lt.u32 %p2, %r6, 4;
        @%p2 bra LOOP;";
    let output = clean(4, body);
    for own in 0..4 {
        for rank in 0..4 {
            let windows = if own == rank { 1 | 2 | 4 } else { 1 };
            let wanted = windows | rank << 4 | rank << 8 | own << 12;
            assert_eq!(output[(4 * own + rank) as usize], wanted, "{rank} as seen by {own}");
        }
    }
}

#[test]
fn addresses_of_no_block_and_of_no_shared_memory_are_faults() {
    let cases = [
        ("mapa.shared::cluster.u32 %r6, s, 2;", "`mapa.shared::cluster.u32`: block 2 of a cluster of 2"),
        ("mapa.shared::cluster.u32 %r6, %r2, -1;", "block 4294967295 of a cluster of 2"),
        ("mapa.u64 %d3, %d1, 0;", "is no address of shared memory"),
        ("getctarank.u64 %r6, %d1;", "is no address of shared memory"),
        ("getctarank.shared::cluster.u32 %r6, 0x3000000;", "0x3000000 is no address of shared memory"),
        ("getctarank.shared::cluster.u64 %r6, 0xffffffffffffffff;", "is no address of shared memory"),
    ];
    for (body, wanted) in cases {
        let why = trap(finds(2, body, 0, 0, body));
        assert!(why.contains(wanted), "{why}");
    }
    let fault =
        finds(2, "mapa.shared::cluster.u32 %r6, s+4096, 1;\nld.shared::cluster.u32 %r7, [%r6];", 0, 0, "ld.shared");
    assert!(fault.to_string().ends_with("the block has 4096 bytes of shared memory"), "{fault}");
}

#[test]
fn the_window_of_a_block_is_its_own() {
    for access in [
        "ld.shared.u32 %r6, [%r3];",
        "ld.shared::cta.u32 %r6, [%r3];",
        "st.shared::cta.u32 [%r3], %r6;",
        "atom.shared.add.u32 %r6, [%r3], 1;",
        "red.shared::cta.add.u32 [%r3], 1;",
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r3];",
        "cp.async.ca.shared.global [%r3], [%d0], 4;",
    ] {
        let why = trap(finds(2, access, 0, 0, access));
        assert_eq!(why, "address 0x2000000 of the cluster's block 1 is not in `.shared::cta`", "{access}");
    }
    // The own block's address is in it, whoever made it.
    clean(2, "mapa.shared::cluster.u32 %r6, %r2, %r1;\nst.shared::cta.u32 [%r6], 1;\nld.shared.u32 %r7, [%r2];");
    // In the window of the cluster an address without a block means the own one.
    clean(2, "st.shared::cluster.u32 [%r2], 1;\nld.shared.u32 %r7, [%r2];");
}

/// Block 0 writes its words, block 1 reads them.
fn handed_over(between: &str) -> String {
    format!("@!%p1 st.shared.u32 [%r2], 1;\n{between}\n@%p1 ld.shared::cluster.u32 %r6, [%r3];\nBARRIER")
}

#[test]
fn a_remote_read_without_a_barrier_races_with_the_owners_write() {
    let bare = handed_over("");
    match finds(2, &bare, 1, 0, "ld.shared::cluster") {
        Fault::Race { action, address, other, other_action, .. } => {
            assert_eq!((action, address, other_action), ("read", 0, "write"));
            assert_eq!(other, Other::Remote { rank: 0, thread: 0 });
        }
        other => panic!("{other}"),
    }
    // A barrier of the block, and a relaxed arrival, order nothing between blocks.
    for between in ["bar.sync 0;", "barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;"] {
        let fault = finds(2, &handed_over(between), 1, 0, "ld.shared::cluster");
        assert!(matches!(fault, Fault::Race { .. }), "{fault}");
    }
    for between in [
        "BARRIER",
        "barrier.cluster.arrive;\nbarrier.cluster.wait;",
        "fence.acq_rel.cluster;\nbarrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;",
        "fence.sc.sys;\nbarrier.cluster.arrive.relaxed;\nbarrier.cluster.wait.acquire;",
    ] {
        clean(2, &handed_over(between));
    }
    // What comes behind the fence is not released by it, nor is anything by a fence of the block.
    for between in [
        "fence.acq_rel.cluster;\n@!%p1 st.shared.u32 [%r2], 2;\nbarrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;",
        "fence.acq_rel.cta;\nbarrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;",
        "barrier.cluster.arrive;\n@!%p1 st.shared.u32 [%r2], 2;\nbarrier.cluster.wait;",
    ] {
        let fault = finds(2, &handed_over(between), 1, 0, "ld.shared::cluster");
        assert!(matches!(fault, Fault::Race { .. }), "{fault}");
    }
}

#[test]
fn a_write_of_the_owner_races_with_a_remote_read_or_write() {
    for (access, kind) in
        [("ld.shared::cluster.u32 %r6, [%r3];", "read"), ("st.shared::cluster.u32 [%r3], 3;", "write")]
    {
        let body = format!(
            "@!%p1 st.shared.u32 [%r2], 1;\nBARRIER\n@%p1 {access}\n//order\n@!%p1 st.shared.u32 [%r2+0], 2;\nBARRIER"
        );
        match finds(2, &body, 0, 0, "[%r2+0]") {
            Fault::Race { action: "write", other: Other::Remote { rank: 1, thread: 0 }, other_action, .. } => {
                assert_eq!(other_action, kind);
            }
            other => panic!("{other}"),
        }
        clean(2, &body.replace("//order", "BARRIER"));
    }
}

#[test]
fn an_access_behind_the_end_of_a_block_is_a_fault() {
    // The block that completes the barrier goes on first: it is block 1, and it exits.
    let body = "st.shared.u32 [%r2], 1;\nBARRIER\n@!%p1 ACCESS\n//end";
    for (access, action) in [
        ("ld.shared::cluster.u32 %r6, [%r3];", "read"),
        ("st.shared::cluster.u32 [%r3], 1;", "write"),
        ("atom.shared::cluster.add.u32 %r6, [%r3], 1;", "atomic"),
    ] {
        let body = body.replace("ACCESS", access);
        match finds(2, &body, 0, 0, access) {
            Fault::Exited { action: found, rank: 1, why } => assert_eq!((found, why), (action, "which has exited")),
            other => panic!("{other}"),
        }
        clean(2, &body.replace("//end", "BARRIER"));
        // An arrival is enough of the one who accesses, and a wait of the owner.
        clean(2, &body.replace("//end", "barrier.cluster.arrive;\n@%p1 barrier.cluster.wait;"));
    }
}

#[test]
fn an_access_that_the_end_of_a_block_does_not_wait_for_is_found() {
    // Block 1 goes on first, accesses block 0's memory, and exits; block 0 exits without having heard of it.
    let body = "st.shared.u32 [%r2], 1;\nBARRIER\n@%p1 ACCESS\n//end";
    for (access, action) in [
        ("ld.shared::cluster.u32 %r6, [%r3];", "read"),
        ("st.shared::cluster.u32 [%r3], 1;", "write"),
        ("red.shared::cluster.add.u32 [%r3], 1;", "atomic"),
    ] {
        let body = body.replace("ACCESS", access);
        for end in ["", "barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;", "barrier.cluster.arrive;"] {
            match finds(2, &body.replace("//end", end), 1, 31, access) {
                Fault::Exited { action: found, rank: 0, why } => {
                    assert_eq!((found, why), (action, "which exits without waiting for it"));
                }
                other => panic!("{other}"),
            }
        }
        clean(2, &body.replace("//end", "BARRIER"));
    }
}

#[test]
fn one_warp_that_waits_keeps_its_block() {
    // Of block 0 one warp waits for block 1's access and the other exits before.
    let body = cluster(
        2,
        "st.shared.u32 [%r2], 1;\nBARRIER
        @%p1 ld.shared::cluster.u32 %r6, [%r3];
        setp.ge.u32 %p2, %r0, 32;
        @%p2 exit;
        BARRIER",
    );
    // The second warp of block 1 exits behind its access without a word.
    let fault = Kernel { threads: 64, ..kernel(2, &body) }.finds(1, 63, "ld.shared::cluster");
    assert!(matches!(fault, Fault::Exited { rank: 0, .. }), "{fault}");
    Kernel { threads: 64, ..kernel(2, &body.replace("@%p2 exit", "@%p2 barrier.cluster.arrive;\n@%p2 exit")) }.clean();
}

#[test]
fn blocks_that_exit_are_not_waited_for() {
    let body = "@%p1 exit;\nBARRIER\nBARRIER\nst.global.u32 [%d2], 7;";
    let output = clean(3, body);
    assert_eq!((output[0], output[64]), (7, 7));
    // Nor are lanes and warps.
    let body = "setp.lt.u32 %p2, %r0, 40;\n@%p2 exit;\nbarrier.cluster.arrive;\nbarrier.cluster.wait;";
    Kernel { threads: 96, ..kernel(2, body) }.clean();
    // One that exits later, without having arrived, lets the others go.
    let body = "@!%p1 barrier.cluster.arrive;\n@!%p1 barrier.cluster.wait;\n@%p1 nanosleep.u32 5;\n@%p1 exit;";
    clean(2, body);
}

#[test]
fn arrivals_and_waits_come_in_turn() {
    let body = "barrier.cluster.arrive.aligned;\nbarrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait;";
    let why = trap(finds(2, body, 0, 0, "arrive.relaxed"));
    assert!(why.starts_with("barrier.cluster.arrive of a warp that has arrived at PTX line "), "{why}");
    let why = trap(finds(2, "barrier.cluster.wait.aligned;", 0, 0, "barrier.cluster.wait"));
    assert_eq!(why, "barrier.cluster.wait of a warp that has not arrived");
    let why = trap(finds(2, "BARRIER\nbarrier.cluster.wait.acquire.aligned;", 1, 0, "wait.acquire"));
    assert_eq!(why, "barrier.cluster.wait of a warp that has not arrived");
    clean(2, "BARRIER\nBARRIER\nbarrier.cluster.arrive;");
}

#[test]
fn lanes_that_come_apart_arrive_together() {
    let body = "setp.lt.u32 %p2, %r0, 7;
        @%p2 barrier.cluster.arrive;
        @!%p2 barrier.cluster.arrive;
        @%p2 bra OTHER;
        barrier.cluster.wait;
        bra.uni DONE;
        OTHER: barrier.cluster.wait;
        DONE: st.global.u32 [%d2], 1;";
    assert_eq!(clean(2, body)[..64], [1; 64]);
    let aligned = body.replace("@!%p2 barrier.cluster.arrive;", "@!%p2 barrier.cluster.arrive.aligned;");
    let ran = kernel(2, &cluster(2, &aligned)).run();
    let findings = &ran.report().findings;
    assert_eq!((findings.len(), findings[0].count), (1, 2), "{findings:?}");
    assert!(
        findings[0].to_string().contains("other lanes of the warp have come to barrier.cluster.arrive at PTX line")
    );
}

#[test]
fn lanes_that_never_come_are_named() {
    let body = "setp.lt.u32 %p2, %r0, 8;
        @%p2 bra FEW;
        barrier.cluster.arrive;
        bra.uni DONE;
        FEW: bar.sync 0;
        DONE: barrier.cluster.wait;";
    match finds(2, body, 0, 8, "barrier.cluster.arrive") {
        Fault::DivergentBarrier(why) => {
            assert_eq!(why, "lanes 0xffffff00 are at barrier.cluster.arrive, lanes 0x000000ff never come");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_block_that_never_arrives_is_named() {
    let stuck = "setp.eq.u32 %p2, %r1, 2;\nsetp.lt.and.u32 %p2, %r0, 32, %p2;\n@%p2 bar.sync 1, 64;\nBARRIER";
    let body = cluster(4, stuck);
    match (Kernel { threads: 64, ..kernel(4, &body) }).finds(0, 0, "barrier.cluster.wait") {
        Fault::Deadlock(why) => {
            assert!(why.starts_with("8 of 8 warps wait; ") && why.contains("bar.sync"), "{why}");
            assert!(why.ends_with("; the cluster's barrier waits for its blocks {2}"), "{why}");
        }
        other => panic!("{other}"),
    }
    Kernel { threads: 64, ..kernel(4, &body.replace("@%p2 bar.sync 1, 64;", "")) }.clean();
}

#[test]
fn the_meter_counts_remote_accesses_apart() {
    // Even lanes address their own block, odd ones the other: 16 lanes each.
    let body = "and.b32 %r6, %r0, 1;
        setp.eq.u32 %p2, %r6, 0;
        shl.b32 %r7, %r0, 4;
        mapa.shared::cluster.u32 %r8, %r7, %r4;
        selp.u32 %r8, %r7, %r8, %p2;
        st.shared.v4.u32 [%r7], {1, 1, 1, 1};
        BARRIER
        ld.shared::cluster.v4.u32 {%r9, %r10, %r11, %r12}, [%r8];
        BARRIER
        mapa.shared::cluster.u32 %r8, %r2, %r4;
        st.shared::cluster.u32 [%r8], 1;
        atom.shared::cluster.add.u32 %r9, [%r8], 1;
        BARRIER";
    let meter = kernel(2, &cluster(2, body)).clean().report().meter.clone();
    let remote = |path| {
        let traffic = meter.traffic[&path];
        (traffic.accesses, traffic.bytes, traffic.sectors, traffic.wavefronts)
    };
    // 16 lanes of 16 bytes, each in a sector of its own; then 32 words side by side.
    assert_eq!(remote(Path::RemoteRead), (2, 2 * 256, 2 * 16, 0));
    assert_eq!(remote(Path::RemoteWrite), (2, 2 * 128, 2 * 4, 0));
    assert_eq!(remote(Path::RemoteAtomic), (2, 2 * 128, 2 * 4, 0));
    let own = meter.traffic[&Path::SharedRead];
    assert_eq!((own.accesses, own.bytes, own.sectors), (2, 2 * 256, 0));
    assert_eq!(meter.instructions(Class::Barrier).warp, 2 * 6);
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let cases = [
        ("barrier.cluster;", "`barrier.cluster`: expected .arrive"),
        ("barrier.cluster.sync;", "expected .arrive{.release, .relaxed}{.aligned} or .wait{.acquire}{.aligned}"),
        ("barrier.cluster.arrive.acquire;", "expected .arrive"),
        ("barrier.cluster.arrive.release.relaxed;", "expected .arrive"),
        ("barrier.cluster.wait.relaxed;", "or .wait"),
        ("barrier.cluster.wait.aligned.aligned;", "`.aligned` stands there twice"),
        ("barrier.cluster.arrive 1;", "expected 0 to 0 operands, got 1"),
        ("mapa.shared.u32 %r2, s, 1;", "expected {.shared::cluster}.u32 or .u64"),
        ("mapa.shared::cta.u32 %r2, s, 1;", "expected {.shared::cluster}"),
        ("mapa.shared::cluster.b32 %r2, s, 1;", "expected {.shared::cluster}"),
        ("mapa.u32 %r2, %r3, 1;", "generic addresses need 64 bits"),
        ("mapa.u64 %d2, s, 1;", "a generic address is in a register"),
        ("mapa.shared::cluster.u32 %d2, s, 1;", "`%d2` is a register of 64 bits, where `.u32` has 32"),
        ("mapa.shared::cluster.u64 %r2, s, 1;", "`%r2` is a register of 32 bits, where `.u64` has 64"),
        ("mapa.shared::cluster.u32 %r2, s;", "expected 3 to 3 operands, got 2"),
        ("getctarank.shared::cluster.u64 %d2, %d3;", "`%d2` is a register of 64 bits, where `.u32` has 32"),
        ("getctarank.shared::cta.u32 %r2, %r3;", "expected {.shared::cluster}"),
        ("getctarank.u64 %r2;", "expected 2 to 2 operands, got 1"),
    ];
    for (body, wanted) in cases {
        let kernel = kernel(2, body);
        let line = kernel.ptx().lines().position(|line| line == body).unwrap() + 1;
        let why = kernel.refusal();
        let opcode = body.split([' ', ';']).next().unwrap();
        assert!(why.starts_with(&format!("line {line}: `{opcode}`: ")) && why.contains(wanted), "{why}");
    }
}
