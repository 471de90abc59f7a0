//! `setmaxnreg`: registers that warpgroups give to each other.

mod kernels;

use kernels::Kernel;
use ptx_sim::fault::Fault;

/// Three warpgroups, launched with 168 registers per thread; `%p0`, `%p1`, `%p2` say which one a thread is of.
fn roles(body: &str) -> String {
    format!(
        "shr.u32 %r2, %r0, 7;
        setp.eq.u32 %p0, %r2, 0;
        setp.eq.u32 %p1, %r2, 1;
        setp.eq.u32 %p2, %r2, 2;
        {body}"
    )
}

fn kernel(body: &str) -> Kernel<'_> {
    Kernel { body, directives: ".maxntid 384, 1, 1 .minnctapersm 1", threads: 384, ..Kernel::default() }
}

fn trap(fault: &Fault) -> &str {
    match fault {
        Fault::Trap(why) => why,
        other => panic!("{other}"),
    }
}

/// The second and third warpgroup take what the first one gives, whoever comes first.
const SPLIT: &str = "@%p0 bra PRODUCER;
    setmaxnreg.inc.sync.aligned.u32 240; /* inc */
    bra END;
    PRODUCER: nanosleep.u32 10;
    setmaxnreg.dec.sync.aligned.u32 24; /* dec */
    END:";

#[test]
fn a_warpgroup_takes_what_another_gives() {
    kernel(&roles(SPLIT)).clean();
    // 24 + 2 * 240 = 3 * 168; of other splits more than that is too much.
    kernel(&roles(&SPLIT.replace("240", "232").replace("dec.sync.aligned.u32 24", "dec.sync.aligned.u32 40"))).clean();
    let greedy = SPLIT.replace("dec.sync.aligned.u32 24", "dec.sync.aligned.u32 40");
    // Seven of the eight warps get 72 more each of the 4 * 128 that were given.
    match kernel(&roles(&greedy)).finds(0, 352, "/* inc */") {
        Fault::Deadlock(why) => {
            let goal = "for 240 registers per thread: it has 168, and the block's pool 8";
            assert!(why.contains(goal) && why.contains("`setmaxnreg.inc.sync.aligned.u32` of PTX line"), "{why}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_kernel_is_launched_with_what_its_directives_say() {
    // Whether a decrease to `most` is allowed and one to the next number is not.
    for (directives, threads, most) in [
        (".maxntid 384, 1, 1 .minnctapersm 1", 384, 168),
        (".reqntid 384, 1, 1 .minnctapersm 2", 384, 80),
        (".maxntid 512 .minnctapersm 1", 128, 128),
        (".maxnreg 168", 128, 168),
        (".maxnreg 170", 128, 176),
        (".maxntid 384, 1, 1 .maxnreg 160", 384, 160),
    ] {
        let body = |count: u32| format!("setmaxnreg.dec.sync.aligned.u32 {count}; /* dec */");
        Kernel { directives, threads, ..kernel(&body(most)) }.clean();
        let fault = Kernel { directives, threads, ..kernel(&body(most + 8)) }.finds(0, 0, "/* dec */");
        assert_eq!(trap(&fault), format!("setmaxnreg.dec to {} registers of a warp that has {most}", most + 8));
    }
    Kernel { directives: ".maxnreg 255", threads: 128, ..kernel("setmaxnreg.dec.sync.aligned.u32 256;") }.clean();
}

#[test]
fn a_setmaxnreg_that_ptxas_leaves_out_is_found() {
    for directives in [".maxntid 384, 1, 1", ".reqntid 384, 1, 1", ".minnctapersm 1", ""] {
        let only = SPLIT.replace("setmaxnreg.dec.sync.aligned.u32 24; /* dec */", "nanosleep.u32 1;");
        let body = roles(&only.replace("240", "168"));
        let fault = Kernel { directives, ..kernel(&body) }.finds(0, 128, "/* inc */");
        assert!(trap(&fault).starts_with("setmaxnreg: ptxas leaves it out, so that no registers move"), "{fault}");
    }
    // It goes on with as many registers as such a block could have.
    let body = "setmaxnreg.dec.sync.aligned.u32 176; /* dec */";
    let fault = Kernel { directives: "", ..kernel(body) }.finds(0, 0, "/* dec */");
    assert_eq!(trap(&fault), "setmaxnreg.dec to 176 registers of a warp that has 168");
}

#[test]
fn an_increase_to_less_is_found() {
    let fault = kernel("setmaxnreg.inc.sync.aligned.u32 160; /* inc */").finds(0, 0, "/* inc */");
    assert_eq!(trap(&fault), "setmaxnreg.inc to 160 registers of a warp that has 168");
    kernel("setmaxnreg.inc.sync.aligned.u32 168;").clean();
}

#[test]
fn the_warps_of_a_warpgroup_execute_the_same_one() {
    // The first warp takes another branch than the rest of its warpgroup.
    let apart = "setp.lt.u32 %p3, %r0, 32;
        @%p3 setmaxnreg.dec.sync.aligned.u32 24; /* first */
        @!%p3 setmaxnreg.dec.sync.aligned.u32 24; /* second */";
    let fault = kernel(&roles(apart)).finds(0, 32, "/* second */");
    assert!(trap(&fault).contains("another warp of the warpgroup is at that of PTX line"), "{fault}");
    let left_out = "setp.ge.u32 %p3, %r0, 32;\n@%p3 setmaxnreg.dec.sync.aligned.u32 24; /* some */";
    let fault = kernel(&roles(left_out)).finds(0, 0, "/* some */");
    assert!(trap(&fault).contains("warp 0 of the warpgroup has exited without executing it"), "{fault}");
    kernel(&roles("@%p0 setmaxnreg.dec.sync.aligned.u32 24;")).clean();
    let few = Kernel { threads: 96, ..kernel("setmaxnreg.dec.sync.aligned.u32 24; /* few */") };
    assert!(trap(&few.finds(0, 0, "/* few */")).contains("the block has only 3"));
    let lanes = "setp.lt.u32 %p3, %r0, 1;\n@%p3 exit;\nsetmaxnreg.dec.sync.aligned.u32 24; /* lanes */";
    assert!(trap(&kernel(lanes).finds(0, 1, "/* lanes */")).contains("needs all 32 lanes"));
}

#[test]
fn a_warpgroup_synchronises_between_two_changes() {
    let twice = |between: &str| {
        roles(&format!(
            "@!%p0 bra END;
            setmaxnreg.dec.sync.aligned.u32 40;
            {between}
            setmaxnreg.dec.sync.aligned.u32 24; /* again */
            END:"
        ))
    };
    kernel(&twice("bar.sync 1, 128;")).clean();
    let fault = kernel(&twice("nanosleep.u32 1;")).finds(0, 0, "/* again */");
    assert!(trap(&fault).contains("has not synchronised since that of PTX line"), "{fault}");
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    for (body, words) in [
        ("setmaxnreg.dec.sync.aligned.u32 16;", "between 24 and 256"),
        ("setmaxnreg.dec.sync.aligned.u32 28;", "multiple of 8"),
        ("setmaxnreg.inc.sync.aligned.u32 264;", "between 24 and 256"),
        ("setmaxnreg.inc.sync.aligned.u32 %r2;", "between 24 and 256"),
        ("setmaxnreg.inc.sync.u32 64;", "expected `setmaxnreg.{inc,dec}.sync.aligned.u32`"),
        ("setmaxnreg.sync.aligned.u32 64;", "expected `setmaxnreg.{inc,dec}.sync.aligned.u32`"),
        ("setmaxnreg.inc.sync.aligned.u32 64, 64;", "expected 1 to 1 operands"),
    ] {
        let error = kernel(body).refusal();
        assert!(error.contains("line 20: `setmaxnreg") && error.contains(words), "{body}: {error}");
    }
}
