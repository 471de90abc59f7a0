//! Located errors, and sources that nobody would write.

use proptest::prelude::*;
use ptx_sim::ast::{Operand, Statement};
use ptx_sim::parse::{ParseError, parse};

use super::{BRANCH, HEADER, SAMPLES, body, file, operand, operands, statement, variable};

#[test]
fn malformed_sources_give_located_errors() {
    const NUMBER: &str = "expected a number of at most 64 bits, found";
    const NESTING: &str = "expected at most 64 levels of";
    // Items begin on line 2.
    for (text, line, column, message) in [
        ("x", 2, 1, "expected a directive, found `x`"),
        (".visible", 2, 9, "expected `.entry`, `.func`, `.global`, `.const` or `.shared`, found end of file"),
        (".extern .reg .b32 x;", 2, 9, "expected `.entry`, `.func`, `.global`, `.const` or `.shared`, found `.reg`"),
        (".texref t;", 2, 1, "expected a directive, found `.texref`"),
        (".address_size 16", 2, 15, "expected `32` or `64`, found `16`"),
        (".target 80", 2, 9, "expected a target such as `sm_90a`, found `80`"),
        (".file 1 a", 2, 9, "expected the file's path, found `a`"),
        (".file 1 \"a\n", 2, 9, "expected `\"` to end this string, found end of line"),
        (".section .s { {}", 2, 17, "expected `}`, found end of file"),
        ("/* a\n", 2, 1, "expected `*/` to end this comment, found end of file"),
        (" /**/ é", 2, 7, "expected a token, found 'é', which begins none"),
        ("/* é */ é", 2, 9, "expected a token, found 'é', which begins none"),
        (".global x;", 2, 9, "expected a type, `.align`, `.v2` or `.v4`, found `x`"),
        (".global .u31 x;", 2, 9, "expected a type, `.align`, `.v2` or `.v4`, found `.u31`"),
        (".global .u32 .u32 x;", 2, 14, "expected a name, found `.u32`"),
        (".shared .pred p;", 2, 9, "expected a type, `.align`, `.v2` or `.v4`, found `.pred`"),
        (".global .align 3 .b8 x;", 2, 16, "expected an alignment, which is a power of two, found `3`"),
        (".global .align 0 .b8 x;", 2, 16, "expected an alignment, which is a power of two, found `0`"),
        (".global .b8 x[1.5];", 2, 15, "expected an integer, found a float"),
        (".global .b8 x[2][];", 2, 18, "expected a constant, found `]`"),
        (".global .b8 x[-1];", 2, 15, "expected a smaller array"),
        (".global .b64 x[1152921504606846976][2];", 2, 14, "expected a smaller array"),
        (".global .b64 x[0][9223372036854775807][2];", 2, 14, "expected a smaller array"),
        (".global .b64 x[0][9223372036854775807][2] = {1};", 2, 14, "expected a smaller array"),
        (".global .b64 x[][0][9223372036854775807][2] = {{1}};", 2, 14, "expected a smaller array"),
        (".func f(.reg .pred p[9223372036854775807][3])", 2, 20, "expected a smaller array"),
        (".global .u32 x = ;", 2, 18, "expected a value, found `;`"),
        (".global .u32 x = 1.0;", 2, 18, "expected an integer, found a float"),
        (".global .f32 x = 1;", 2, 18, "expected a float, found an integer"),
        (".shared .u32 x = 1;", 2, 16, "expected no initial value outside of `.const` and `.global`, found `=`"),
        (".global .u32 x[2] = 1;", 2, 21, "expected `{`, found `1`"),
        (".global .u32 x[2] = {1, 2, 3};", 2, 28, "expected no more values than elements, found `3`"),
        (".global .u32 x[0] = {1};", 2, 22, "expected no more values than elements, found `1`"),
        (".global .u32 x[2][0] = {{1}};", 2, 25, "expected no more values than elements, found `{`"),
        (".global .u32 x[2] = {{1}};", 2, 22, "expected a value, found `{`"),
        (".global .u32 x[2][2] = {1, {2}};", 2, 28, "expected a value, found `{`"),
        (".global .u32 x[2] = {1 2};", 2, 24, "expected `,` or `}`, found `2`"),
        (".global .u32 x y;", 2, 16, "expected `=`, `[`, `,` or `;`, found `y`"),
        (".global .b8 x[2] = {g};", 2, 21, "expected a number, as addresses take 4 or 8 bytes, found `g`"),
        (
            ".global .b8 x[2] = {0xFF(g)};",
            2,
            25,
            "expected `,` or `}`, as bytes of addresses such as `0xFF(name)` are not supported, found `(`",
        ),
        (
            ".global .b8 x[2][99999] = {{1}, {2}};",
            2,
            34,
            "expected at most 65536 values and statements implied by nested values and aliases",
        ),
        (".alias f, g;", 2, 11, "expected a defined function, found `g`"),
        (".func f() {}\n.func g() {}\n.alias f, g;", 4, 8, "expected a declared function, found `f`"),
        (".func f();\n.alias f, f;", 3, 11, "expected a defined function, found `f`"),
        (".entry (", 2, 8, "expected the function's name, found `(`"),
        (".entry k(.global .b8 x)", 2, 10, "expected `.param` or `.reg`, found `.global`"),
        (".entry k(.param .b8 x", 2, 22, "expected `,` or `)`, found end of file"),
        (".entry k() .maxntid {", 2, 21, "expected a number, found `{`"),
        (".entry k() .maxntid 1,,", 2, 23, "expected a number, found `,`"),
        (".entry k() .maxnreg 4294967296 {", 2, 21, "expected a number, found `4294967296`"),
        (".entry k() .fast {", 2, 12, "expected a performance directive, `{` or `;`, found `.fast`"),
        (".entry k() ret", 2, 12, "expected a performance directive, `{` or `;`, found `ret`"),
        (".entry k() { {ret; }", 2, 21, "expected a statement or `}`, found end of file"),
    ] {
        let expected = ParseError { line, column, message: message.to_owned() };
        assert_eq!(file(text).map(drop), Err(expected), "{text}");
    }
    // Statements begin on line 3.
    for (text, column, message) in [
        (";", 1, "expected a statement or `}`, found `;`".to_owned()),
        (".version 9.0", 1, "expected a statement or `}`, found `.version`".to_owned()),
        (".extern .reg .b32 x;", 9, "expected `.shared` or `.global`, found `.reg`".to_owned()),
        (".reg .b32 x<y>;", 13, "expected the number of registers, found `y`".to_owned()),
        (".reg .b32 x<1;", 14, "expected `>`, found `;`".to_owned()),
        (".reg .b32 x y;", 13, "expected `<`, `,` or `;`, found `y`".to_owned()),
        (".loc 1 2", 1, "expected a column, found `}`".to_owned()),
        (".loc 1 2 3, at", 13, "expected `function_name` or `inlined_at`, found `at`".to_owned()),
        (".pragma x;", 9, "expected a string, found `x`".to_owned()),
        ("@p {}", 4, "expected an opcode, found `{`".to_owned()),
        ("@1 ret;", 2, "expected a predicate, found `1`".to_owned()),
        ("_: ret;", 1, "expected a label, found `_`".to_owned()),
        ("%r1 = 2;", 1, "expected an opcode or a label, found `%r1`".to_owned()),
        ("t: .branchtargets a b;", 21, "expected `,` or `;`, found `b`".to_owned()),
        ("p: .callprototype _ () }", 24, "expected `;`, found `}`".to_owned()),
        ("add.s32 a, b", 1, "expected `,` or `;`, found `}`".to_owned()),
        ("add.s32 a, ;", 12, "expected an operand, found `;`".to_owned()),
        ("add.s32 a b;", 11, "expected `,` or `;`, found `b`".to_owned()),
        ("add.s32 ];", 9, "expected an operand or `;`, found `]`".to_owned()),
        ("mov.b32 %r1+4;", 12, "expected `,` or `;`, found `+`".to_owned()),
        ("mov.b32 a.q;", 10, "expected `,`, `;` or a component such as `.x`, found `.q`".to_owned()),
        ("mov.b32 a|1;", 11, "expected a name, found `1`".to_owned()),
        ("ld.b32 a, [];", 12, "expected a register, variable or number, found `]`".to_owned()),
        ("ld.b32 a, [_];", 12, "expected a register, variable or number, found `_`".to_owned()),
        ("ld.b32 a, [b+c];", 14, "expected a constant, found `c`".to_owned()),
        ("ld.b32 a, [b+1.0];", 14, "expected an integer, found a float".to_owned()),
        ("ld.b32 a, [b;", 13, "expected `+`, `,` or `]`, found `;`".to_owned()),
        ("mov.b64 {}, a;", 10, "expected an operand, found `}`".to_owned()),
        ("mov.b64 {a b}, c;", 12, "expected `,` or `}`, found `b`".to_owned()),
        ("call;", 5, "expected a function, found `;`".to_owned()),
        ("call (a) f;", 10, "expected `,`, found `f`".to_owned()),
        ("call f, (a), (b);", 14, "expected a prototype, found `(`".to_owned()),
        ("call f, p, q;", 10, "expected `;`, found `,`".to_owned()),
        ("call f, (a b);", 12, "expected `,` or `)`, found `b`".to_owned()),
        ("op 18446744073709551616;", 4, format!("{NUMBER} `18446744073709551616`")),
        ("op 12ab;", 4, format!("{NUMBER} `12ab`")),
        ("op 08;", 4, format!("{NUMBER} `08`")),
        ("op 0x;", 4, format!("{NUMBER} `0x`")),
        ("op 0f3F80;", 4, format!("{NUMBER} `0f3F80`")),
        ("op 1.5x;", 4, format!("{NUMBER} `1.5x`")),
        ("op 1 / 0;", 6, "expected a divisor other than 0".to_owned()),
        ("op 1 % (1-1);", 6, "expected a divisor other than 0".to_owned()),
        ("op 1 + 1.0;", 6, "expected integers around `+`".to_owned()),
        ("op ~1.0;", 4, "expected an integer behind `~`".to_owned()),
        ("op (1;", 6, "expected `)`, found `;`".to_owned()),
        (&format!("op {}1;", "(".repeat(65)), 68, format!("{NESTING} nesting")),
        (&format!("op {}1;", "-".repeat(65)), 68, format!("{NESTING} nesting")),
        (&"{".repeat(65), 65, format!("{NESTING} scopes, found `{{`")),
        (&format!("op {};", "a".repeat(50) + "!"), 54, "expected `,` or `;`, found `!`".to_owned()),
        (&format!("op ){};", "a".repeat(50)), 4, "expected an operand or `;`, found `)`".to_owned()),
        (&format!("op a {};", "b".repeat(50)), 6, format!("expected `,` or `;`, found `{}...`", "b".repeat(40))),
    ] {
        // What lacks in a line is found missing at the closing brace on the next.
        let line = if column == 1 && message.ends_with("found `}`") { 4 } else { 3 };
        assert_eq!(body(text).map(drop), Err(ParseError { line, column, message }), "{text}");
    }
    for (text, column, message) in [
        ("", 1, "expected `.version`, found end of file"),
        (".target sm_80", 1, "expected `.version`, found `.target`"),
        (".version 9", 10, "expected a version such as `9.0`, found `9`"),
        (".version 9.x", 10, "expected a version such as `9.0`, found `9`"),
        (".version 9.0e1", 10, "expected a version such as `9.0`, found `9.0e1`"),
    ] {
        let expected = ParseError { line: 1, column, message: message.to_owned() };
        assert_eq!(parse(text), Err(expected), "{text}");
    }
    let shown = ParseError { line: 12, column: 5, message: "expected `;`, found `x`".to_owned() };
    assert_eq!(shown.to_string(), "line 12, column 5: expected `;`, found `x`");
}

/// Parses what may be nonsense, and checks that an error lies in the source.
fn survives(source: &str) {
    if let Err(error) = parse(source) {
        let lines: Vec<&str> = source.split('\n').collect();
        let line = lines.get(error.line as usize - 1).unwrap_or_else(|| panic!("{error} is behind the end"));
        assert!(error.column >= 1 && error.column as usize <= line.chars().count() + 1, "{error}");
        assert!(error.message.starts_with("expected "), "{error}");
    }
}

#[test]
fn sources_cut_anywhere_return() {
    for length in (0..BRANCH.len()).filter(|length| BRANCH.is_char_boundary(*length)) {
        survives(&BRANCH[..length]);
        survives(&BRANCH[length..]);
    }
}

#[test]
fn deep_nesting_is_an_error_instead_of_a_stack_overflow() {
    for open in ["(", "[", "{", "-", "~", "!", "- -", "[(", "{-", "(-", "{[", "[a,", "{a,"] {
        let deep = open.repeat(1_000_000);
        let error = body(&format!("op {deep}")).unwrap_err();
        assert!(error.line == 3 && error.column < 200, "{open}: {error}");
        let error = file(&format!(".global .u32 x{}[2] = {deep}", "[2]".repeat(50))).unwrap_err();
        assert!(error.line == 2 && error.column < 500, "{open}: {error}");
    }
    assert!(body(&"{".repeat(1_000_000)).is_err());
    assert!(file(&format!(".section s {}", "{".repeat(1_000_000))).is_err());
    assert!(file(&format!(".attribute{}", "(".repeat(1_000_000))).is_err());
}

#[test]
fn large_sources_take_linear_time() {
    // Each would take hours if a step looked at everything before or behind it.
    let many = 200_000;
    assert_eq!(body(&"add.s32 %r1, %r2, 1;\n".repeat(many)).unwrap().len(), many);
    assert_eq!(operands(&format!("op {} a;", "1 + 1,".repeat(many))).len(), many + 1);
    assert_eq!(operand(&format!("1{}", "+ 1".repeat(many))), Operand::Integer(many as u64 + 1));
    assert_eq!(statement(&format!("{}:", "l".repeat(many))), Statement::Label("l".repeat(many)));
    assert_eq!(variable(&format!(".global .b8 x[] = {{1{}}};", ",1".repeat(many))).init.len(), many + 1);
    assert_eq!(variable(&format!(".global .b8 x{} ;", "[1]".repeat(many))).count, Some(1));
    assert!(file(&format!(".func f() {{ {} }}\n{}", "ret;".repeat(1000), ".alias a, f;".repeat(many))).is_err());
    let body = "ret;".repeat(1000);
    let aliases: String = (0..many).map(|index| format!(".alias a{index}, f;")).collect();
    assert!(file(&format!(".func f() {{ {body} }}\n{aliases}")).unwrap_err().message.contains("implied"));
    let sparse: String = (0..many).map(|index| format!(".global .b8 x{index}[2][60000] = {{{{1}},{{1}}}};")).collect();
    assert!(file(&sparse).unwrap_err().message.contains("implied"));
}

/// One change of a source's bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(usize, u8),
    Flip(usize, u8),
    Delete(usize, usize),
    Duplicate(usize, usize, usize),
    Truncate(usize),
    Insert(usize, String),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<usize>;
    let token = prop::sample::select(vec![
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "|",
        "!",
        "-",
        ".",
        "::",
        "_",
        "\"",
        "/*",
        "*/",
        "//",
        "%",
        "$",
        "@",
        "<<",
        "0f",
        "0x",
        "1e",
        "generic(",
        ".loc",
        ".align",
        ".section",
        ".alias",
        "call",
        "é",
        "\0",
        "18446744073709551615",
    ]);
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (place(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (place(), 1..40usize).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (place(), 1..200usize, place()).prop_map(|(at, length, to)| Mutation::Duplicate(at, length, to)),
        place().prop_map(Mutation::Truncate),
        (place(), token).prop_map(|(at, text)| Mutation::Insert(at, text.to_owned())),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let size = bytes.len();
    if size == 0 {
        return;
    }
    let range = |at: usize, length: usize| at % size..(at % size + length).min(size);
    match mutation {
        Mutation::Set(at, byte) => bytes[at % size] = *byte,
        Mutation::Flip(at, bit) => bytes[at % size] ^= 1 << bit,
        Mutation::Delete(at, length) => drop(bytes.drain(range(*at, *length))),
        Mutation::Duplicate(at, length, to) => {
            let copy = bytes[range(*at, *length)].to_vec();
            bytes.splice(to % size..to % size, copy);
        }
        Mutation::Truncate(at) => bytes.truncate(at % size),
        Mutation::Insert(at, text) => drop(bytes.splice(at % size..at % size, text.bytes())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_samples_return(
        sample in prop::sample::select(SAMPLES.to_vec()),
        mutations in prop::collection::vec(mutation(), 1..6),
    ) {
        let mut bytes = sample.as_bytes().to_vec();
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_text_in_a_body_returns(text in "[ -~\n]{0,200}") {
        survives(&format!("{HEADER}.entry k() {{ {text}"));
    }

    #[test]
    fn any_text_returns(text in ".{0,200}") {
        survives(&format!("{HEADER}{text}"));
    }
}
