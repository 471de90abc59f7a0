//! How often each instruction is issued, against counts that are derived by hand.

use ptx_sim::profile::Executed;
use ptx_sim::{Launch, Machine, Params};

/// Warp 1 of each block runs the loop once, warp 0 three times; lane 0 of each alone adds.
const LOOP: &str = r#".version 9.0
.target sm_80
.address_size 64
.file 1 "loop.cu"
.entry k(.param .u64 unused) {
.reg .pred %p<3>;
.reg .b32 %r<4>;
.loc 1 7 1
mov.u32 %r0, %tid.x;
setp.lt.u32 %p0, %r0, 32;
selp.u32 %r1, 3, 1, %p0;
mov.u32 %r3, %laneid;
setp.eq.u32 %p1, %r3, 0;
again:
@%p1 add.u32 %r2, %r2, 1;
sub.u32 %r1, %r1, 1;
setp.ne.u32 %p2, %r1, 0;
@%p2 bra again;
bar.sync 0;
ret;
}"#;

fn profile(launch: &Launch) -> Vec<Executed> {
    let mut machine = Machine::default();
    let module = machine.load(LOOP).unwrap();
    machine.launch(&module, "k", launch, Params::new().pointer(0).bytes()).unwrap().profile
}

#[test]
fn each_instruction_is_counted_by_warp_whether_or_not_its_guard_lets_a_lane_pass() {
    let profile = profile(&Launch::new([5, 1, 1], [64, 1, 1]).with_profile(true));
    let of = |line: u32| profile.iter().find(|executed| executed.ptx_line == line).unwrap();
    assert_eq!(profile.len(), 11);
    assert_eq!(of(9).issued, [5, 5]);
    assert_eq!(of(15).issued, [15, 5]);
    assert_eq!(of(18).issued, [15, 5]);
    assert_eq!(of(18).warps(), 20);
    // The first warp at the barrier waits there, which is not issuing.
    assert_eq!(of(19).issued, [5, 5]);
    assert_eq!(of(15).function, "k");
    assert_eq!(of(15).instruction, "add.u32");
    assert_eq!(of(15).source, Some(("loop.cu".into(), 7)));
}

#[test]
fn a_launch_that_does_not_ask_has_no_profile() {
    assert!(profile(&Launch::new([5, 1, 1], [64, 1, 1])).is_empty());
}

#[test]
fn the_profile_adds_up_to_the_meter() {
    let mut machine = Machine::default();
    let module = machine.load(LOOP).unwrap();
    let launch = Launch::new([7, 1, 1], [96, 1, 1]).with_profile(true);
    let report = machine.launch(&module, "k", &launch, Params::new().pointer(0).bytes()).unwrap();
    assert_eq!(report.profile.iter().map(Executed::warps).sum::<u64>(), report.meter.total().warp);
}
