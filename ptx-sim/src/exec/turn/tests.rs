//! Stretches of instructions that run straight do what single steps do: random programs, run both ways, leave the same
//! memory, counts and findings, or end with the same fault.

use std::cell::Cell;

use crate::{Launch, LaunchError, Limits, Machine, Params, Report};

#[path = "../../../tests/programs/mod.rs"]
mod programs;

use programs::{INPUTS, NARROW, PREDICATES, Random, SLOTS};

thread_local! {
    static SINGLE_STEPS: Cell<bool> = const { Cell::new(false) };
    /// How often a turn of this thread has looked for the group to run.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// Whether this thread's launches on one core run instruction by instruction.
pub(super) fn single_steps() -> bool {
    LOOKS.set(LOOKS.get() + 1);
    SINGLE_STEPS.get()
}

/// What depends on where the warp's other lanes and other warps are, or stops a stretch. `V` is a register, `P` a
/// predicate, `K` an offset of a word, `L` a new label. A jump to the beginning may have no end but the limit of steps.
const LINES: [&str; 36] = [
    "mov.u32 V, %clock;",
    "mov.u32 V, %clock;",
    "activemask.b32 V;",
    "activemask.b32 V;",
    "nanosleep.u32 20;",
    "nanosleep.u32 20;",
    "nanosleep.u32 20;\nmov.u32 V, %clock;",
    "bar.sync 0;",
    "bar.warp.sync 0xffffffff;",
    "shfl.sync.bfly.b32 V, V, 3, 31, 0xffffffff;",
    "vote.sync.ballot.b32 V, P, 0xffffffff;",
    "match.any.sync.b32 V, V, 0xffffffff;",
    "redux.sync.add.u32 V, V, 0xffffffff;",
    "elect.sync _|P, 0xffffffff;",
    "atom.shared.add.u32 V, [s+K], V;",
    "atom.global.add.u32 V, [%mine], V;",
    "atom.global.add.u32 V, [%in+K], V;",
    "red.shared.max.u32 [s+K], V;",
    "st.shared.u32 [s+K], V;",
    "ld.shared.u32 V, [s+K];",
    "st.global.u32 [%in+K], V;",
    "ld.global.u32 V, [%in+K];",
    "cp.async.ca.shared.global [s+K], [%in+K], 4;",
    "cp.async.wait_all;",
    "mbarrier.init.shared.b64 [s+512], 8;",
    "mbarrier.arrive.shared.b64 _, [s+512];",
    "mbarrier.test_wait.parity.shared.b64 P, [s+512], 0;",
    "mbarrier.try_wait.parity.shared.b64 P, [s+512], 0;",
    "add.cc.u32 V, V, V;\naddc.u32 V, V, V;",
    "L: ld.volatile.shared.u32 %t3, [s+K];\nsetp.eq.u32 P, %t3, 0;\n@P bra L;",
    "L: atom.shared.add.u32 %t3, [s+K], 1;\nsetp.lt.u32 %c, %t3, 40;\n@%c bra L;",
    "@P exit;",
    "@P ret;",
    "@P trap;",
    "st.global.u32 [%mine+100000], V;",
    "@P bra B0;",
];

/// Makes lines of a few kinds, drawn for each program.
fn lines(seed: u64) -> impl FnMut(&mut Random) -> String {
    let mut random = Random::new(!seed);
    let kinds: Vec<&str> = (0..1 + random.below(5)).map(|_| random.of(&LINES)).collect();
    let mut labels = 0;
    move |random| {
        let line = random.of(&kinds);
        let mut text = String::new();
        labels += 1;
        let predicate = random.below(PREDICATES);
        for letter in line.chars() {
            match letter {
                'L' => text += &format!("L{labels}"),
                'V' => text += &format!("%v{}", random.below(NARROW)),
                'P' => text += &format!("%p{predicate}"),
                'K' => text += &(4 * random.below(INPUTS)).to_string(),
                other => text.push(other),
            }
        }
        text
    }
}

/// What a module's kernels leave, one after the other, and how often its turns looked for a group to run.
struct Left {
    results: Vec<Result<Report, LaunchError>>,
    memory: Vec<u8>,
    looks: u64,
}

fn run(ptx: &str, seed: u64, is_stepped: bool) -> Left {
    let mut random = Random::new(seed.wrapping_mul(3));
    let mut limits = Limits::default();
    (limits.cores, limits.steps) = (1, random.of(&[100, 300, 40_000, 40_000, 40_000]));
    let (blocks, threads) = (1 + random.below(2) as u32, random.of(&[1, 32, 32, 40, 96]));
    let launch = Launch::new([blocks, 1, 1], [threads, 1, 1]);
    let launch = launch.with_checked(!random.once_in(4)).with_profile(random.once_in(2));
    let mut machine = Machine::new(limits);
    let module = machine.load(ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let bytes: Vec<u8> = (0..4 * INPUTS).map(|_| random.below(256) as u8).collect();
    let mine = 4 * SLOTS * (blocks * threads) as usize;
    let (input, output) = (machine.memory.allocate(bytes.len()).unwrap(), machine.memory.allocate_zeros(mine).unwrap());
    machine.memory.write(input, &bytes).unwrap();
    let params = Params::new().pointer(input).pointer(output);
    SINGLE_STEPS.set(is_stepped);
    LOOKS.set(0);
    let launched = module.kernels().into_iter().map(|name| machine.launch(&module, name, &launch, params.bytes()));
    let (results, mut memory) = (launched.collect(), bytes);
    SINGLE_STEPS.set(false);
    machine.memory.read(input, &mut memory).unwrap();
    let mut rest = vec![0; mine];
    machine.memory.read(output, &mut rest).unwrap();
    memory.extend(rest);
    Left { results, memory, looks: LOOKS.get() }
}

/// Runs a module both ways, which leave the same.
fn compare(ptx: &str, seed: u64) -> [Left; 2] {
    let [straight, stepped] = [false, true].map(|is_stepped| run(ptx, seed, is_stepped));
    for (kernel, (straight, stepped)) in straight.results.iter().zip(&stepped.results).enumerate() {
        assert_eq!(straight, stepped, "seed {seed}, kernel {kernel}\n{ptx}");
    }
    assert!(straight.memory == stepped.memory, "seed {seed}: memory differs\n{ptx}");
    [straight, stepped]
}

#[test]
fn running_straight_does_what_single_steps_do() {
    let (mut clean, mut found, mut ended, mut looks) = (0, 0, 0, [0; 2]);
    for seed in 0..400 {
        let program = programs::random(seed, Some(&mut lines(seed)));
        let [straight, stepped] = compare(&program.ptx(), seed);
        for result in &straight.results {
            match result {
                Ok(report) if report.findings.is_empty() => clean += 1,
                Ok(_) => found += 1,
                Err(_) => ended += 1,
            }
        }
        looks = [looks[0] + straight.looks, looks[1] + stepped.looks];
    }
    // Programs of every fate, and stretches worth the name.
    assert!(clean > 50 && found > 50 && ended > 50, "{clean} clean, {found} with findings, {ended} ended");
    assert!(2 * looks[0] < looks[1], "{looks:?}");
}

/// Lanes in two calls of one function are at the same instruction and do not become one group: each of them executes it
/// before either goes on, which the clock tells.
#[test]
fn lanes_in_two_calls_of_one_function_alternate() {
    let call = "{ .param .b32 got; call (got), f, (); ld.param.b32 %r1, [got]; }";
    let ptx = format!(
        ".version 9.0\n.target sm_80\n.address_size 64\n.func (.param .b32 result) f () {{
        .reg .b32 %r<3>;
        nanosleep.u32 20;
        mov.u32 %r0, %clock;
        mov.u32 %r1, %clock;
        mad.lo.u32 %r2, %r0, 1000, %r1;
        st.param.b32 [result], %r2;
        ret;
        }}
        .visible .entry k (.param .u64 in, .param .u64 out) {{
        .reg .b32 %r<2>; .reg .b64 %d<2>; .reg .pred %p;
        mov.u32 %r0, %tid.x;
        setp.lt.u32 %p, %r0, 16;
        @%p bra LOW;
        {call}
        bra END;
        LOW: {call}
        END: ld.param.u64 %d0, [out];
        mad.wide.u32 %d1, %r0, 4, %d0;
        st.global.u32 [%d1], %r1;
        ret;
        }}"
    );
    for seed in 0..8 {
        compare(&ptx, seed);
    }
}
