//! PTX that nobody would write, and launches that nobody would want: there is a result or an error, and it comes soon.

use std::time::Instant;

use proptest::prelude::*;
use ptx_sim::fault::Fault;
use ptx_sim::{Launch, LaunchError, Limits, Machine, Module, Report};

const SAMPLES: [&str; 9] = [
    include_str!("ptx/ampere.ptx"),
    include_str!("ptx/branch.ptx"),
    include_str!("ptx/control.ptx"),
    include_str!("ptx/hopper.ptx"),
    include_str!("ptx/matmul.ptx"),
    include_str!("ptx/memory.ptx"),
    include_str!("../suite/ptx/cluster_90.ptx"),
    include_str!("../suite/ptx/async_store_90.ptx"),
    include_str!("../suite/ptx/registers_90.ptx"),
];

const HEADER: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n";

/// Steps of a warp in these tests.
const STEPS: u64 = 400;

fn machine() -> Machine {
    let mut limits = Limits::default();
    (limits.steps, limits.cores) = (STEPS, 1);
    Machine::new(limits)
}

/// What stands for the bytes of parameters.
#[derive(Clone, Copy, Debug)]
enum Parameters {
    Zero,
    /// Every eight bytes are the address of an allocation.
    Pointers,
    Noise(u64),
}

fn parameters(machine: &mut Machine, module: &Module, kernel: &str, kind: Parameters) -> Vec<u8> {
    let (size, _) = module.parameters(kernel).unwrap();
    let pointer = machine.memory.allocate(4096).unwrap();
    let mut state = if let Parameters::Noise(seed) = kind { seed | 1 } else { 0 };
    let words = (0..size.div_ceil(8)).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match kind {
            Parameters::Zero => 0,
            Parameters::Pointers => pointer,
            Parameters::Noise(_) => state >> (state >> 58),
        }
        .to_le_bytes()
    });
    words.take(size).collect()
}

/// Loads it and launches every kernel. Whatever happens, it returns.
fn survives(ptx: &str, kind: Parameters) {
    let started = Instant::now();
    let mut machine = machine();
    let errors = ptx_sim::check(ptx);
    match machine.load(ptx) {
        Ok(module) => {
            assert!(errors.is_empty());
            for kernel in module.kernels() {
                let params = parameters(&mut machine, &module, kernel, kind);
                let launch = Launch::new([2, 1, 1], [33, 1, 1]);
                let mut launches = vec![launch.clone(), launch.clone().with_checked(false)];
                if ptx.contains("cluster") {
                    launches.extend([true, false].map(|c| launch.clone().with_cluster([2, 1, 1]).with_checked(c)));
                }
                launches.iter().for_each(|launch| drop(machine.launch(&module, kernel, launch, &params)));
            }
        }
        Err(error) => assert_eq!(error, errors[0]),
    }
    // A launch takes milliseconds; a minute of a busy machine is still far from a hang.
    assert!(started.elapsed().as_secs() < 60, "{ptx}");
}

/// The error of loading a module of these items, which begin on line 4.
fn refusal(items: &str) -> String {
    machine().load(&format!("{HEADER}{items}")).err().unwrap_or_else(|| panic!("accepted:\n{items}")).to_string()
}

/// Launches kernel `k` with a parameter block of zeros.
fn run(items: &str) -> Result<Report, LaunchError> {
    let mut machine = machine();
    let module = machine.load(&format!("{HEADER}{items}")).unwrap_or_else(|error| panic!("{error}\n{items}"));
    let params = parameters(&mut machine, &module, "k", Parameters::Zero);
    machine.launch(&module, "k", &Launch::new([1; 3], [32, 1, 1]), &params)
}

#[test]
fn arrays_larger_than_a_gpu_are_refused() {
    let huge = i64::MAX;
    for (items, line) in [
        (format!(".global .b8 a[{huge}];"), 4),
        (".global .b8 a[1073741824], b[1];".into(), 4),
        (".const .b8 a[1000000];".into(), 4),
        (format!(".shared .b8 a[{huge}];"), 4),
        (format!(".entry k() {{\n.local .b8 a[{huge}];\nret;\n}}"), 5),
        (".entry k() {\n.local .b8 a[524288];\n.local .b8 b[1];\nret;\n}".into(), 6),
        (format!(".entry k() {{\n.shared .b8 a[{huge}];\nret;\n}}"), 5),
        (format!(".entry k() {{\n.param .b8 a[{huge}];\nret;\n}}"), 5),
        (format!(".entry k(.param .b8 a[{huge}]) {{ ret; }}"), 4),
        (format!(".shared .b8 a[1];\n.shared .b8 b[{huge}];"), 5),
        (".shared .b8 a[1];\n.shared .align 2147483648 .b8 b[1];".into(), 5),
    ] {
        let error = refusal(&items);
        assert!(error.starts_with(&format!("line {line}: variable `")) && error.contains("more than"), "{error}");
    }
}

#[test]
fn more_registers_than_a_kernel_can_have_are_refused() {
    for ty in ["b32", "b128", "pred"] {
        let error = refusal(&format!(".entry k()\n{{\n.reg .{ty} %r<4000000000>;\nret;\n}}"));
        assert_eq!(error, "line 4: registers `%r` of `k`: more than 65536 in all");
    }
    let many = (0..9).map(|i| format!(".reg .b32 %r{i}_<8000>;\n")).collect::<String>();
    assert!(refusal(&format!(".entry k()\n{{\n{many}ret;\n}}")).starts_with("line 4: registers `%r8_`"));
}

#[test]
fn a_register_name_of_many_digits_is_found_quickly() {
    let name = "7".repeat(100_000);
    let items = format!(".entry k()\n{{\n.reg .b32 %r<4>;\nmov.u32 %r{name}, 1;\nret;\n}}");
    assert!(refusal(&items).ends_with("is no register"));
}

#[test]
fn a_kernel_without_a_body_cannot_be_launched() {
    let mut machine = machine();
    let module = machine.load(&format!("{HEADER}.extern .entry k();")).unwrap();
    assert!(module.kernels().is_empty() && module.parameters("k").is_none());
    let result = machine.launch(&module, "k", &Launch::new([1; 3], [1; 3]), &[]);
    assert!(matches!(result, Err(LaunchError::NoKernel { .. })));
}

#[test]
fn an_endless_recursion_ends_before_memory_does() {
    let recursion = |local: usize| {
        let items = format!(
            ".func f() {{\n.local .b8 a[{local}];\ncall f;\nret;\n}}\n.visible .entry k() {{\ncall f;\nret;\n}}"
        );
        match run(&items) {
            Err(LaunchError::Fault(finding)) => finding.fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(recursion(16), Fault::StepLimit(STEPS));
    assert!(matches!(recursion(1 << 19), Fault::Trap(why) if why.contains("exceed")));
}

#[test]
fn addresses_wrap_around_instead_of_overflowing() {
    let ends = [
        ".reg .b64 %d;\nmov.u64 %d, -1;\nld.global.u8 %r, [%d];",
        ".reg .b64 %d;\nmov.u64 %d, -1;\nld.u8 %r, [%d+9223372036854775807];",
        ".reg .b64 %d;\nmov.u64 %d, -9223372036854775808;\nst.global.u64 [%d], %d;",
        ".local .b8 a[8];\nld.local.u32 %r, [a+-4];",
        ".local .b8 a[8];\n.reg .b64 %d;\nmov.u64 %d, a+-4;\nld.local.u32 %r, [%d];",
        "ld.param.u32 %r, [p+4294967296];",
        "ld.shared.u32 %r, [4294967292];",
    ];
    for end in ends {
        let items = format!(".visible .entry k(.param .u32 p) {{\n.reg .b32 %r;\n{end}\nret;\n}}");
        match run(&items) {
            Err(LaunchError::Fault(finding)) => {
                assert!(matches!(finding.fault, Fault::OutOfBounds { .. }), "{finding}")
            }
            other => panic!("{end}: {other:?}"),
        }
    }
}

#[test]
fn registers_narrower_than_the_access_are_refused() {
    for (body, wanted) in [
        ("ld.global.b128 %d, [%d];", "`%d` is a register of 64 bits, where `.b128` has 128"),
        ("st.global.b128 [%d], %d;", "`%d` is a register of 64 bits, where `.b128` has 128"),
        ("atom.global.exch.b128 %d, [%d], %d;", "`%d` is a register of 64 bits, where `.b128` has 128"),
        ("ld.global.v4.u32 %r, [%d];", "`%r` has less than 4 elements"),
        ("ld.global.v8.u32 %v, [%d];", "`%v` has less than 8 elements"),
        ("st.global.v2.u32 [%d], %r;", "`%r` has less than 2 elements"),
    ] {
        let error =
            refusal(&format!(".entry k() {{\n.reg .v4 .b32 %v;\n.reg .b64 %d;\n.reg .b32 %r;\n{body}\nret;\n}}"));
        assert!(error.starts_with("line 8: ") && error.contains(wanted), "{body}: {error}");
    }
}

#[test]
fn formats_of_any_width_print_something() {
    for format in ["%99999999999999999999d", "%.99999999999999999999f", "%*d", "%.*f", "%"] {
        let bytes = format.bytes().chain([0]).map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        let items = format!(
            ".global .b8 text[{}] = {{{bytes}}};\n.extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);\n\
             .visible .entry k() {{\n.local .align 8 .b8 a[16];\n.reg .b64 %d<3>;\n.param .b64 f;\n.param .b64 v;\n\
             .param .b32 r;\nmov.u64 %d0, text;\ncvta.global.u64 %d0, %d0;\nmov.u64 %d1, a;\n\
             cvta.local.u64 %d1, %d1;\nmov.u64 %d2, -1;\nst.local.u64 [a], %d2;\nst.local.u64 [a+8], %d2;\n\
             st.param.b64 [f], %d0;\nst.param.b64 [v], %d1;\ncall (r), vprintf, (f, v);\nret;\n}}",
            format.len() + 1
        );
        match run(&items) {
            Ok(report) => assert!((32..1 << 18).contains(&report.printed.len()), "{format}"),
            Err(error) => assert!(format == "%" && error.to_string().contains("unknown conversion"), "{error}"),
        }
    }
}

#[test]
fn a_module_that_cannot_be_loaded_leaves_nothing_behind() {
    let mut machine = machine();
    assert!(machine.load(&format!("{HEADER}.global .b8 a[256];\n.entry k() {{ foo; }}")).is_err());
    assert!(machine.memory.read(0x7000_0000_0000, &mut [0]).is_err());
}

#[test]
fn every_unknown_instruction_is_named() {
    let items = ".entry k() {\nfoo.u32 1;\nret;\n}\n.func f() {\nbar.baz;\nmov.u32 %r1, 1;\n}";
    let errors: Vec<_> = ptx_sim::check(&format!("{HEADER}{items}")).iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert_eq!(errors[0], "line 5: `foo.u32`: unknown instruction");
    assert!(errors[1].starts_with("line 9: `bar.baz`"), "{}", errors[1]);
    assert!(errors[2].starts_with("line 10: `mov.u32`"), "{}", errors[2]);
}

/// Masks and selectors choose bytes: an instruction that ignored them would compute something else.
#[test]
fn masks_and_selectors_of_vabsdiff4_are_refused() {
    for (operands, why) in [
        ("%r0.b0, %r1, %r2, %r3", "line 6: `vabsdiff4.u32.u32.u32`: `%r0.b0` is no register"),
        ("%r0, %r1, %r2.b0, %r3", "line 6: `vabsdiff4.u32.u32.u32`: `%r2.b0` is not declared"),
        ("%r0.b3210, %r1, %r2, %r3", "line 6, column 26: "),
        ("%r0, %r1.b7654, %r2, %r3", "line 6, column 31: "),
    ] {
        let items = format!(".entry k() {{\n.reg .b32 %r<4>;\nvabsdiff4.u32.u32.u32 {operands};\nret;\n}}");
        let error = refusal(&items);
        assert!(error.starts_with(why), "{error}");
    }
}

#[test]
fn samples_survive_parameters_of_any_kind() {
    for sample in SAMPLES {
        for kind in [Parameters::Zero, Parameters::Pointers, Parameters::Noise(1), Parameters::Noise(99)] {
            survives(sample, kind);
        }
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u32),
    DeleteLine(usize),
    /// Copies a line behind another one that is near.
    CopyLine(usize, usize),
    /// Swaps two words that are near.
    Swap(usize, usize),
    Number(usize, &'static str),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let numbers = ["0", "1", "3", "-1", "31", "255", "65536", "2147483648", "4294967295", "9223372036854775807"];
    prop_oneof![
        1 => (any::<usize>(), 0..8u32).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        2 => any::<usize>().prop_map(Mutation::DeleteLine),
        2 => (any::<usize>(), 0..40usize).prop_map(|(at, to)| Mutation::CopyLine(at, to)),
        6 => (any::<usize>(), 1..30usize).prop_map(|(at, to)| Mutation::Swap(at, to)),
        4 => (any::<usize>(), prop::sample::select(numbers.to_vec())).prop_map(|(at, n)| Mutation::Number(at, n)),
    ]
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "%$_.:".contains(c)
}

/// The text's words and what stands between them, and the indices of those words that `wanted` takes.
fn words(text: &str, wanted: fn(&str) -> bool) -> (Vec<&str>, Vec<usize>) {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    let indices = (0..pieces.len()).filter(|&i| pieces[i].starts_with(is_word) && wanted(pieces[i])).collect();
    (pieces, indices)
}

fn mutate(text: &str, mutation: &Mutation) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let count = lines.len();
    match *mutation {
        Mutation::Flip(at, bit) => {
            let mut bytes = text.as_bytes().to_vec();
            let len = bytes.len();
            bytes[at % len] ^= 1 << bit;
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        Mutation::DeleteLine(at) => drop(lines.remove(at % count)),
        Mutation::CopyLine(at, to) => lines.insert((at % count + to).min(count), lines[at % count]),
        Mutation::Swap(at, to) => {
            let (mut pieces, indices) = words(text, |_| true);
            let at = at % indices.len();
            pieces.swap(indices[at], indices[(at + to) % indices.len()]);
            return pieces.concat();
        }
        Mutation::Number(at, number) => {
            let (mut pieces, indices) = words(text, |word| word.bytes().all(|c| c.is_ascii_digit()));
            pieces[indices[at % indices.len()]] = number;
            return pieces.concat();
        }
    }
    lines.join("\n")
}

fn kinds() -> impl Strategy<Value = Parameters> {
    prop_oneof![
        1 => Just(Parameters::Zero),
        3 => Just(Parameters::Pointers),
        1 => any::<u64>().prop_map(Parameters::Noise),
    ]
}

/// The sample's text without debug sections and line information, so that mutations meet code.
fn code(sample: &str) -> String {
    let end = sample.find("\t.section").unwrap_or(sample.len());
    let lines = sample[..end].lines().filter(|line| !line.trim_start().starts_with(".loc") && !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_samples_return(
        sample in prop::sample::select(SAMPLES.to_vec()),
        mutations in prop::collection::vec(mutation(), 1..4),
        kind in kinds(),
    ) {
        survives(&mutations.iter().fold(code(sample), |text, step| mutate(&text, step)), kind);
    }
}
