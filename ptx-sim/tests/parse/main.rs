//! The parser: exact trees of representative statements, and all that nvcc emitted for the samples in `tests/ptx`.
//!
//! The samples were compiled by nvcc 13.0.88 from the `.cu` beside each: `nvcc -ptx -lineinfo -rdc=true
//! -arch=compute_80`, `branch` with `-G` alone and `hopper` with `-gencode arch=compute_90a,code=compute_90a`.
//! Directories were cut from their `.file` lines and from the debug sections.

mod malformed;

use ptx_sim::ast::{Function, Initializer, Instruction, Location, Module, Operand, Space, Statement, Type, Variable};
use ptx_sim::parse::{ParseError, parse};

const AMPERE: &str = include_str!("../ptx/ampere.ptx");
const BRANCH: &str = include_str!("../ptx/branch.ptx");
const CONTROL: &str = include_str!("../ptx/control.ptx");
const HOPPER: &str = include_str!("../ptx/hopper.ptx");
const MEMORY: &str = include_str!("../ptx/memory.ptx");
const SAMPLES: [&str; 5] = [AMPERE, BRANCH, CONTROL, HOPPER, MEMORY];

const HEADER: &str = ".version 9.0 .target sm_90a .address_size 64\n";

/// A file of these items, which begin on line 2.
fn file(items: &str) -> Result<Module, ParseError> {
    parse(&format!("{HEADER}{items}"))
}

/// The statements of a kernel with this body, which begins on line 3.
fn body(text: &str) -> Result<Vec<Statement>, ParseError> {
    Ok(file(&format!(".entry k() {{\n{text}\n}}"))?.functions.remove(0).body.unwrap())
}

fn statement(text: &str) -> Statement {
    let mut statements = body(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(statements.len(), 1, "{text}");
    statements.remove(0)
}

fn operands(text: &str) -> Vec<Operand> {
    match statement(text) {
        Statement::Instruction(instruction) => instruction.operands,
        other => panic!("{text}: {other:?}"),
    }
}

fn operand(text: &str) -> Operand {
    operands(&format!("op {text};")).remove(0)
}

fn variable(text: &str) -> Variable {
    let mut module = file(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(module.variables.len(), 1, "{text}");
    module.variables.remove(0)
}

fn name(text: &str) -> Operand {
    Operand::Name(text.to_owned())
}

fn address(base: &str, offset: i64) -> Operand {
    Operand::Address { base: Box::new(name(base)), offset }
}

fn vector(names: &[&str]) -> Operand {
    Operand::Vector(names.iter().map(|text| name(text)).collect())
}

fn list(names: &[&str]) -> Operand {
    Operand::List(names.iter().map(|text| name(text)).collect())
}

fn bits(values: &[u64]) -> Vec<Initializer> {
    values.iter().copied().map(Initializer::Bits).collect()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn plain(name: &str, space: Space, ty: Type, line: u32) -> Variable {
    let (name, align) = (name.to_owned(), ty.size());
    Variable { name, space, ty, vector: 1, count: Some(1), align, init: Vec::new(), external: false, line }
}

fn instructions(module: &Module) -> Vec<&Instruction> {
    let statements = module.functions.iter().flat_map(|function| function.body.iter().flatten());
    statements.filter_map(|one| if let Statement::Instruction(found) = one { Some(found) } else { None }).collect()
}

/// The text before a comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn all_samples_parse_into_their_functions() {
    let defined = |source: &str| -> Vec<String> {
        let module = parse(source).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((module.version, module.address_size), ((9, 0), 64));
        module.functions.into_iter().filter(|function| function.body.is_some()).map(|function| function.name).collect()
    };
    assert_eq!(defined(AMPERE), ["_Z6amperePK5uint4S1_Pfi"]);
    assert_eq!(defined(BRANCH), ["_Z5twicei", "branch"]);
    let functions = ["_Z3addii", "_Z3mulii", "_Z4swap4Pair", "_Z9fibonaccij", "_Z4stopv", "control"];
    assert_eq!(defined(CONTROL), functions);
    assert_eq!(defined(HOPPER), ["_Z6hopper14CUtensorMap_stPfPKv"]);
    assert_eq!(defined(MEMORY), ["_Z6memoryPfPK6__halfP13__nv_bfloat16P13__nv_fp8_e4m3Pdi"]);
}

#[test]
fn every_instruction_of_the_samples_is_on_its_line() {
    for source in SAMPLES {
        let module = parse(source).unwrap();
        let found = instructions(&module);
        let lines: Vec<&str> = source.lines().collect();
        for instruction in &found {
            let line = code(lines[instruction.line as usize - 1]);
            assert!(line.contains(&instruction.name()), "{}: {line:?} lacks {}", instruction.line, instruction.name());
            assert_eq!(line.contains('@'), instruction.guard.is_some(), "{line}");
        }
        assert!(found.is_sorted_by_key(|instruction| instruction.line));
        // All lines that begin with an opcode of several parts, a guard, `call` or `ret`.
        let has_one = |line: &str| {
            let first = code(line).split_whitespace().next().unwrap_or_default();
            let dotted = first.starts_with(|letter: char| letter.is_ascii_lowercase()) && first.contains('.');
            dotted || first.starts_with('@') || matches!(first, "call" | "ret;" | "trap;")
        };
        for (line, text) in (1..).zip(lines).filter(|(_, text)| has_one(text)) {
            assert!(found.iter().any(|instruction| instruction.line == line), "line {line}: {text}");
        }
    }
}

#[test]
fn lines_count_through_comments_strings_and_carriage_returns() {
    let source =
        ".version 9.0 /* a\n\n b */ .target sm_80\r\n.file 1 \"a // b\"\n.entry k() { // }\n\n@%p1\n ret; trap;\n}";
    let module = parse(source).unwrap();
    assert_eq!(module.files, [(1, "a // b".to_owned())]);
    assert_eq!(module.functions[0].line, 5);
    assert_eq!(instructions(&module).iter().map(|one| one.line).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn a_kernel_keeps_its_parameters_and_directives() {
    let text = ".visible .entry k(\n .param .u64 .ptr .global .align 16 a,\n .param .align 8 .b8 b[40]\n)\n\
                .maxntid 256, 1, 1\n.minnctapersm 2\n.explicitcluster\n.reqnctapercluster 2\n{\n ret;\n}";
    let ret = Instruction { guard: None, opcode: strings(&["ret"]), operands: vec![], line: 11 };
    let expected = Function {
        name: "k".to_owned(),
        entry: true,
        returns: vec![],
        params: vec![
            plain("a", Space::Param, Type::U64, 3),
            Variable { count: Some(40), align: 8, ..plain("b", Space::Param, Type::B8, 4) },
        ],
        directives: vec![
            ("maxntid".to_owned(), vec![256, 1, 1]),
            ("minnctapersm".to_owned(), vec![2]),
            ("explicitcluster".to_owned(), vec![]),
            ("reqnctapercluster".to_owned(), vec![2]),
        ],
        body: Some(vec![Statement::Instruction(ret)]),
        line: 2,
    };
    assert_eq!(file(text).unwrap().functions, [expected]);
}

#[test]
fn a_function_may_be_declared_and_return_values() {
    let text = ".extern .func (.param .b32 r, .reg .pred q) f\n(\n .param .b64 _\n)\n.noreturn\n;";
    let expected = Function {
        name: "f".to_owned(),
        entry: false,
        returns: vec![
            plain("r", Space::Param, Type::B32, 2),
            Variable { align: 1, ..plain("q", Space::Reg, Type::Pred, 2) },
        ],
        params: vec![plain("_", Space::Param, Type::B64, 4)],
        directives: vec![("noreturn".to_owned(), vec![])],
        body: None,
        line: 2,
    };
    assert_eq!(file(text).unwrap().functions, [expected]);
}

#[test]
fn an_alias_is_a_copy_of_its_target() {
    let text = ".visible .func f(.param .b32 x);\n.visible .func g(.param .b32 y) { ret; }\n.alias f, g;\n.alias h, f;";
    let functions = file(text).unwrap().functions;
    assert_eq!(functions.iter().map(|function| function.name.as_str()).collect::<Vec<_>>(), ["f", "g", "h"]);
    for function in [&functions[0], &functions[2]] {
        assert_eq!((&function.body, &function.params), (&functions[1].body, &functions[1].params));
    }
}

#[test]
fn directives_of_the_file_are_kept_or_skipped() {
    let text = ".version 8.10\n.target sm_90a, debug\n.pragma \"a\", \"b\";\n.file 3 \"/x y\", 12, 7\n\
                .section .debug_info\n{\n$L:\n.b64 .debug_abbrev, $L-4\n.b8 -1,\"s\"\n}\n.section name { .b32 0 }\n\0";
    let expected = Module {
        version: (8, 10),
        target: strings(&["sm_90a", "debug"]),
        address_size: 32,
        files: vec![(3, "/x y".to_owned())],
        ..Module::default()
    };
    assert_eq!(parse(text).unwrap(), expected);
}

#[test]
fn variables_keep_space_shape_and_alignment() {
    assert_eq!(
        variable(".extern .shared .align 16 .b8 s[];"),
        Variable { count: None, align: 16, external: true, ..plain("s", Space::Shared, Type::B8, 2) }
    );
    assert_eq!(
        variable(".weak .const .v4 .f32 c[2][3];"),
        Variable { count: Some(6), align: 16, vector: 4, ..plain("c", Space::Const, Type::F32, 2) }
    );
    assert_eq!(variable(".common .global .b64 g;"), plain("g", Space::Global, Type::B64, 2));
    assert_eq!(variable(".global .b8 g[2*4];").count, Some(8));
    let many = file(".global .u32 a = 1, b[2], c = 3;").unwrap().variables;
    assert_eq!(
        many.iter().map(|one| (one.count, one.init.len())).collect::<Vec<_>>(),
        [(Some(1), 1), (Some(2), 0), (Some(1), 1)]
    );
}

#[test]
fn initial_values_are_the_bits_of_their_type() {
    for (text, expected) in [
        (".global .u64 a = -1;", &[u64::MAX][..]),
        (".global .s16 a[3] = {-2, 0x1FFFF};", &[0xFFFE, 0xFFFF]),
        (".global .f32 a[3] = {0f3F800000, -0.5, 0dC000000000000000};", &[0x3F80_0000, 0xBF00_0000, 0xC000_0000]),
        (".global .f64 a[2] = {0f3F800000, -0d3FF0000000000000};", &[0x3FF0_0000_0000_0000, 0xBFF0_0000_0000_0000]),
        (".global .b32 a = 0f7F800001;", &[0x7F80_0001]),
        (".global .b16 a = {1};", &[1]),
        (".global .f16 a = 1.0;", &[0x3C00]),
        (".global .bf16 a = 0f40000000;", &[0x4000]),
        (".const .u8 a[2][3] = {{1}, {2, 3}};", &[1, 0, 0, 2, 3]),
        (".const .u8 a[2][2][2] = {{{1}, {2}}, {3, 4}};", &[1, 0, 2, 0, 3, 4]),
        (".const .u8 a[2][2] = {1, 2, {3}};", &[1, 2, 3]),
        (".global .v2 .u32 a[2] = {{1}, {2, 3}};", &[1, 0, 2, 3]),
    ] {
        assert_eq!(variable(text).init, bits(expected), "{text}");
    }
}

#[test]
fn unsized_variables_are_as_large_as_their_values() {
    assert_eq!(variable(".global .u32 a[] = {1, 2, 3};").count, Some(3));
    assert_eq!(variable(".global .u32 a[][2] = {{1}, {2}, {3}};").count, Some(6));
    assert_eq!(variable(".global .v2 .u32 a[][2] = {1, 2, 3, 4, 5};").count, Some(4));
}

#[test]
fn initial_values_may_be_addresses() {
    let at = |name: &str, offset, generic| Initializer::Address { name: name.to_owned(), offset, generic };
    assert_eq!(
        variable(".global .u64 a[5] = {f, generic(b)+16, 7, c-4, generic+1};").init,
        [at("f", 0, false), at("b", 16, true), Initializer::Bits(7), at("c", -4, false), at("generic", 1, false)]
    );
    let memory = parse(MEMORY).unwrap();
    let find = |name: &str| memory.variables.iter().find(|one| one.name == name).unwrap();
    assert_eq!(find("second").init, [at("grid", 16, true)]);
    assert_eq!(find("ring").init[2], at("last", 0, true));
    assert_eq!(find("managed").init, bits(&[4]));
    assert_eq!(find("table").init[4..8], bits(&[0, 0, 32, 192]));
}

#[test]
fn declarations_in_bodies_are_statements() {
    assert_eq!(
        statement(".reg .v2 .b32 %r<41>, x;"),
        Statement::Registers {
            ty: Type::B32,
            vector: 2,
            names: vec![("%r".to_owned(), Some(41)), ("x".to_owned(), None)]
        }
    );
    assert_eq!(statement(".local .align 16 .b8 __local_depot5[80];"), {
        Statement::Variable(Variable {
            count: Some(80),
            align: 16,
            ..plain("__local_depot5", Space::Local, Type::B8, 3)
        })
    });
    let scopes = body("{ // callseq 0, 0\n.param .b32 param0;\n}\n.pragma \"nounroll\";").unwrap();
    let param = Statement::Variable(plain("param0", Space::Param, Type::B32, 4));
    assert_eq!(scopes, [Statement::Open, param, Statement::Close]);
}

#[test]
fn locations_know_where_they_were_inlined() {
    let plain = Location { file: 1, line: 12, column: 0, inlined_at: None };
    assert_eq!(statement(".loc\t1 12 0"), Statement::Location(plain));
    for text in [
        ".loc 2 612 3, function_name $L__info_string0, inlined_at 1 44 5",
        ".loc 2 612 3, function_name $L__info_string0+17, inlined_at 1 44 5",
    ] {
        let inlined = Location { file: 2, line: 612, column: 3, inlined_at: Some((1, 44, 5)) };
        assert_eq!(statement(text), Statement::Location(inlined));
    }
}

#[test]
fn labels_name_places_tables_and_prototypes() {
    assert_eq!(statement("$L__BB0_1:"), Statement::Label("$L__BB0_1".to_owned()));
    let targets = Statement::BranchTargets { name: "$t".to_owned(), targets: strings(&["$a", "$b"]) };
    assert_eq!(statement("$t: .branchtargets\n\t$a,\n\t$b;"), targets);
    for text in ["p : .callprototype (.param .b32 _) _ (.param .b32 _, .param .b32 _);", "p: .calltargets f, g;"] {
        assert_eq!(statement(text), Statement::CallPrototype("p".to_owned()));
    }
    assert_eq!(operands("brx.idx %r1, $t;"), [name("%r1"), name("$t")]);
}

#[test]
fn opcodes_keep_their_colons() {
    let text = "@!%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint \
                [%r6], [%rd9, {%r1, %r2}], [%r3], %rd7;";
    let tensor = Operand::TensorAddress(vec![name("%rd9"), vector(&["%r1", "%r2"])]);
    let opcode = "cp async bulk tensor 2d shared::cluster global mbarrier::complete_tx::bytes L2::cache_hint";
    assert_eq!(
        statement(text),
        Statement::Instruction(Instruction {
            guard: Some(("%p1".to_owned(), true)),
            opcode: opcode.split(' ').map(str::to_owned).collect(),
            operands: vec![address("%r6", 0), tensor, address("%r3", 0), name("%rd7")],
            line: 3,
        })
    );
    match statement("ld .global.L2::128B .f32 %f1, [%rd1];") {
        Statement::Instruction(load) => assert_eq!(load.opcode, ["ld", "global", "L2::128B", "f32"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_have_results_function_arguments_and_prototype() {
    assert_eq!(operands("call.uni (r), f, (a, b);"), [list(&["r"]), name("f"), list(&["a", "b"])]);
    assert_eq!(operands("call.uni\nf,\n(\n);"), [name("f"), list(&[])]);
    assert_eq!(operands("call (r), %rd1, (a), p;"), [list(&["r"]), name("%rd1"), list(&["a"]), name("p")]);
    assert_eq!(operands("call %rd1, p;"), [name("%rd1"), name("p")]);
    assert_eq!(operands("call.uni f;"), [name("f")]);
    assert_eq!(operands("call f, (1);"), [name("f"), Operand::List(vec![Operand::Integer(1)])]);
}

#[test]
fn operands_of_every_kind() {
    let pair = |a, b| Operand::Pair(Box::new(a), Box::new(b));
    let sum = |base: &str, offset| Operand::Sum { name: base.to_owned(), offset };
    let at_number = |base, offset| Operand::Address { base: Box::new(Operand::Integer(base)), offset };
    for (text, expected) in [
        ("%r1", name("%r1")),
        ("%tid.x", name("%tid.x")),
        ("%v.w", name("%v.w")),
        ("$str$1", name("$str$1")),
        ("_", Operand::Sink),
        ("[%r1]", address("%r1", 0)),
        ("[%rd1+-16]", address("%rd1", -16)),
        ("[%rd1-16]", address("%rd1", -16)),
        ("[%r12 + 2048]", address("%r12", 2048)),
        ("[sym+4*2+1]", address("sym", 9)),
        ("[16]", at_number(16, 0)),
        ("[16+4]", at_number(20, 0)),
        ("[m+64, {%r1, %r1}]", Operand::TensorAddress(vec![sum("m", 64), vector(&["%r1", "%r1"])])),
        ("{a, b}", vector(&["a", "b"])),
        ("{_, %r1}", Operand::Vector(vec![Operand::Sink, name("%r1")])),
        ("{0,%rs2}", Operand::Vector(vec![Operand::Integer(0), name("%rs2")])),
        ("p|q", pair(name("p"), name("q"))),
        ("%r83|%p3", pair(name("%r83"), name("%p3"))),
        ("_|p", pair(Operand::Sink, name("p"))),
        ("t2|_", pair(name("t2"), Operand::Sink)),
        ("!p", Operand::Not(Box::new(name("p")))),
        ("-%f1", Operand::Negative(Box::new(name("%f1")))),
        ("table+16", sum("table", 16)),
        ("table-8+1*2", sum("table", -6)),
        ("0f3F800000", Operand::F32(0x3F80_0000)),
        ("-0F3f800000", Operand::F32(0xBF80_0000)),
        ("0d7FF0000000000001", Operand::F64(0x7FF0_0000_0000_0001)),
        ("1.5", Operand::F64(1.5f64.to_bits())),
        ("-2.5E-1", Operand::F64((-0.25f64).to_bits())),
        ("1e+3", Operand::F64(1000f64.to_bits())),
    ] {
        assert_eq!(operand(text), expected, "{text}");
    }
}

#[test]
fn constants_follow_c() {
    for (text, expected) in [
        ("0", 0i64),
        ("-1", -1),
        ("017", 15),
        ("0x1fU", 31),
        ("0b1110U", 14),
        ("4294967295U", 0xFFFF_FFFF),
        ("18446744073709551615", -1),
        ("-9223372036854775808", i64::MIN),
        ("0xFFFFFFFFFFFFFFFF", -1),
        ("-(1 << 4) + 3*2", -10),
        ("2+3*4-1", 13),
        ("10-3-2", 5),
        ("~0", -1),
        ("!3", 0),
        ("- -5", 5),
        ("7 % 4 | 8", 11),
        ("6 & 3 ^ 1", 3),
        ("-8 >> 1", -4),
        ("-8 / 3", -2),
        ("0xFFFFFFFFFFFFFFFF >> 60", 15),
        ("-1U / 2", i64::MAX),
        ("1 << 64", 0),
        ("-1 >> 64", -1),
        ("(-9223372036854775807 - 1) / -1", i64::MIN),
        ("(-9223372036854775807 - 1) % -1", 0),
        ("-9223372036854775808 / -1", 0),
        ("WARP_SZ - 1", 31),
    ] {
        assert_eq!(operand(text), Operand::Integer(expected.cast_unsigned()), "{text}");
    }
}

#[test]
fn predicates_combine_in_setp() {
    let not = Operand::Not(Box::new(name("r")));
    let pair = Operand::Pair(Box::new(name("p")), Box::new(name("q")));
    assert_eq!(operands("setp.lt.and.f32 p|q, a, b, !r;"), [pair, name("a"), name("b"), not]);
}
