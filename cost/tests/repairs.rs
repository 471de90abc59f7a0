//! What the assembler mends, drops or merges is seen in its machine code. Without the CUDA toolkit's programs there is
//! nothing to look at, which `LATENT_ATTENTION_STRICT=1` (`cargo xtask test`) does not let pass.

use std::path::Path;

use latent_attention::image::{Arch, images};
use latent_attention_cost::sass::repairs::{kernels, needs_looking_at, repairs};
use latent_attention_cost::tools::Tools;

fn tools() -> Option<Tools> {
    let found = Tools::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    let strict = std::env::var_os("LATENT_ATTENTION_STRICT").is_some_and(|value| value == "1");
    assert!(!strict || found.is_ok(), "{found:?}");
    found.map_err(|why| eprintln!("left out: {why}")).ok()
}

const FENCE: &str = "wgmma.fence.sync.aligned;";
const COMMIT: &str = "wgmma.commit_group.sync.aligned;";
const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";
const FIRST: &str =
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0, %d1, %d2, %d3}, %x0, %x1, p, 1, 1, 0, 0;";
const SECOND: &str =
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%e0, %e1, %e2, %e3}, %x1, %x0, p, 1, 1, 0, 0;";
const STORE: &str = "st.global.v4.f32 [%to], {%d0, %d1, %d2, %d3};";
const STORE_SECOND: &str = "st.global.v4.f32 [%to+16], {%e0, %e1, %e2, %e3};";

/// A module with one kernel of these lines.
fn module(bounds: &str, lines: &[&str]) -> String {
    format!(
        "\
.version 9.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 to, .param .u64 from) {bounds} {{
.reg .f32 %d<4>, %e<4>;
.reg .b64 %x<2>, %to, %from;
.reg .b32 %r;
.reg .pred p;
setp.eq.u32 p, 0, 0;
ld.param.u64 %to, [to];
ld.param.u64 %from, [from];
mov.u32 %r, %tid.x;
ld.global.v2.u64 {{%x0, %x1}}, [%from];
ld.global.v4.f32 {{%d0, %d1, %d2, %d3}}, [%from+32];
ld.global.v4.f32 {{%e0, %e1, %e2, %e3}}, [%from+64];
{}
ret;
}}
",
        lines.join("\n")
    )
}

const BOUNDED: &str = ".maxntid 128 .minnctapersm 1";

#[test]
fn what_the_assembler_does_otherwise_is_found() {
    let Some(tools) = tools() else { return };
    let wait_1 = "wgmma.wait_group.sync.aligned 1;";
    let [few, many] = ["setmaxnreg.dec.sync.aligned.u32 40;", "setmaxnreg.inc.sync.aligned.u32 232;"];
    let take = ["setp.lt.u32 p, %r, 128;", "@p bra consumer;", few, "ret;", "consumer:", many, STORE];
    let two = [FENCE, FIRST, COMMIT, FENCE, SECOND, COMMIT];
    let [count, again] = ["sub.u32 %r, %r, 1;\nsetp.ne.u32 q, %r, 0;", "@q bra again;"];
    let around = |round: &[&'static str], behind: &[&'static str]| {
        [&[".reg .pred q;\nld.param.u32 %r, [to];\nagain:"], round, &[count, again], behind].concat()
    };
    for (what, bounds, lines, expected) in [
        ("nothing", BOUNDED, vec![FENCE, FIRST, COMMIT, WAIT, STORE], vec![]),
        ("two groups", BOUNDED, [&two[..], &[wait_1, STORE, WAIT, STORE_SECOND]].concat(), vec![]),
        ("a fence", BOUNDED, vec![FIRST, COMMIT, WAIT, STORE], vec!["WARPGROUP.ARRIVE"]),
        ("a commit", BOUNDED, vec![FENCE, FIRST, WAIT, STORE], vec!["without wgmma.commit_group"]),
        ("a wait", BOUNDED, vec![FENCE, FIRST, COMMIT, STORE], vec!["WARPGROUP.DEPBAR.LE gsb0, 0x0"]),
        ("equal products", BOUNDED, vec![FENCE, FIRST, FIRST, COMMIT, WAIT, STORE], vec!["of 2 wgmma.mma_async 1"]),
        ("a commit in the loop", BOUNDED, around(&[FENCE, FIRST, COMMIT], &[WAIT, STORE]), vec![]),
        (
            "a commit behind the loop",
            BOUNDED,
            around(&[FENCE, FIRST], &[COMMIT, WAIT, STORE]),
            vec!["WARPGROUP.ARRIVE", "1 products of nothing commit"],
        ),
        ("registers kept", ".maxntid 256 .minnctapersm 1", take.to_vec(), vec![]),
        ("registers", ".maxntid 256", take.to_vec(), vec!["{40, 232} registers, and for {}"]),
    ] {
        let ptx = module(bounds, &lines);
        assert!(needs_looking_at(&ptx, "kernel"), "{what}");
        let found = repairs(&ptx, &tools.machine_code(&ptx, "sm_90a", "kernel").unwrap());
        let as_expected = found.len() == expected.len() && found.iter().zip(&expected).all(|(f, e)| f.contains(e));
        assert!(as_expected, "{what}: {found:?}");
    }
    // A wait for the other one is no wait for this one.
    let early = module(BOUNDED, &[&two[..], &[wait_1, STORE_SECOND, WAIT, STORE]].concat());
    assert_ne!(repairs(&early, &tools.machine_code(&early, "sm_90a", "kernel").unwrap()), [""; 0]);
    assert!(!needs_looking_at(&module(BOUNDED, &[STORE]), "kernel"));
}

#[test]
fn the_machine_code_of_hoppers_kernels_is_what_they_ask_for() {
    let Some(tools) = tools() else { return };
    for image in images().iter().filter(|image| image.arch == Arch::Compute90a) {
        let ptx = std::str::from_utf8(image.bytes).unwrap();
        for kernel in kernels(ptx).filter(|kernel| needs_looking_at(ptx, kernel)) {
            let found = repairs(ptx, &tools.machine_code(ptx, Arch::Sm90a.name(), kernel).unwrap());
            assert!(found.is_empty(), "{kernel} of {}: {found:#?}", image.kernel_file);
        }
    }
}
