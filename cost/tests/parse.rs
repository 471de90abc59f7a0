//! Reading a disassembly: `csrc/copy_pages.cu`, as `ptxas -arch=sm_90a -O3 -lineinfo` and `nvdisasm -c -gp -hex` of CUDA
//! 13.0.88 make it, with blanks at the ends of lines and in front of words taken out.

use latent_attention_cost::sass::blocks::Graph;
use latent_attention_cost::sass::parse::{Function, Instruction, parse};
use latent_attention_cost::sass::pipes::{Pipe, products};
use latent_attention_cost::work::{Launch, measure};

const TEXT: &str = include_str!("data/copy_pages.sass");

fn copy_pages() -> Function {
    let mut functions = parse(TEXT).unwrap();
    assert_eq!(functions.len(), 1);
    functions.remove(0)
}

#[test]
fn every_instruction_is_read_with_its_line_and_control_field() {
    let function = copy_pages();
    assert_eq!(function.name, "copy_pages");
    // 0x480 bytes, 16 each.
    assert_eq!(function.instructions.len(), 0x48);
    assert!(function.instructions.iter().enumerate().all(|(i, instruction)| instruction.address as usize == 16 * i));
    let load = &function.instructions[0x18];
    assert_eq!((load.guard.as_deref(), load.opcode.as_str()), (Some("!P0"), "LDG.E.128"));
    assert_eq!(load.operands, "R16, desc[UR8][R22.64]");
    assert_eq!((load.mnemonic(), load.has("128"), load.has("64")), ("LDG", true, false));
    assert_eq!((load.ptx_line, load.control.write, load.control.stall), (Some(99), Some(2), 4));
    // A line holds until the next is named.
    assert_eq!(function.instructions[0x8].ptx_line, Some(40));
    // `NOP;` has no blank in front of its semicolon.
    assert_eq!(function.instructions[0x3d].opcode, "NOP");
}

#[test]
fn branches_know_where_they_go() {
    let function = copy_pages();
    assert_eq!(function.instructions[0x9].target, Some(0x270));
    assert_eq!(function.instructions[0x3c].target, Some(0x3c0));
    assert_eq!(function.instructions[0x18].target, None);
}

#[test]
fn blocks_end_where_control_may_go_elsewhere() {
    let function = copy_pages();
    let graph = Graph::new(&function);
    let starts: Vec<usize> = graph.blocks.iter().map(|block| block.start).collect();
    // Behind `@P0 BRA`, `@P3 EXIT`, `EXIT`, `@P0 EXIT`, `EXIT`, `BRA`.
    assert_eq!(starts, [0, 0xa, 0x25, 0x27, 0x2e, 0x3c, 0x3d]);
    assert_eq!(graph.next, [vec![3, 1], vec![2], vec![], vec![4], vec![], vec![5], vec![]]);
    assert_eq!(graph.reachable, [true, true, true, true, true, false, false]);
    assert_eq!(graph.previous()[4], [3]);
}

#[test]
fn a_barrier_ends_a_block_and_a_phase() {
    let mut function = copy_pages();
    function.instructions[0x15].opcode = "BAR.SYNC".into();
    let graph = Graph::new(&function);
    assert_eq!(graph.blocks[1], 0xa..0x16);
    assert_eq!(graph.blocks[2], 0x16..0x25);
    // The entry, what is in front of the barrier and the path for wrong ids are one; what is behind it another.
    assert_eq!(graph.phases(&function)[..6], [0, 0, 2, 2, 0, 0]);
}

#[test]
fn text_that_is_no_disassembly_is_refused_with_its_line() {
    let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
    assert!(error(".text.k:\n/*zz*/ NOP; /* 0x0 */\n/* 0x0 */").starts_with("line 2 of the disassembly"));
    assert!(error(".text.k:\n/*0000*/ NOP; /* 0x0000000000007918 */").starts_with("line 2 of the disassembly"));
    assert!(error(".text.k:\n/*0000*/ NOP; /* 0x1 */\nno word").starts_with("line 3 of the disassembly"));
    let nowhere = ".text.k:\n/*0000*/ BRA `(.L_x_9) ; /* 0x1 */\n/* 0x2 */";
    assert_eq!(error(nowhere), "k: BRA jumps to `.L_x_9`, which is nowhere");
}

/// An instruction that is nothing but its opcode.
fn instruction(opcode: &str) -> Instruction {
    let text = format!(".text.k:\n/*0000*/ {opcode} ; /* 0x1 */\n/* 0x000fe20000000000 */\n");
    parse(&text).unwrap().remove(0).instructions.remove(0)
}

#[test]
fn instructions_belong_to_pipes() {
    let of = |opcode| Pipe::of(&instruction(opcode)).unwrap();
    assert_eq!(of("LOP3.LUT"), Pipe::Alu);
    assert_eq!(of("IMAD.WIDE.U32"), Pipe::Fma);
    assert_eq!(of("MUFU.EX2"), Pipe::Special);
    assert_eq!(of("LDSM.16.M88.4"), Pipe::LoadStore);
    assert_eq!(of("UIADD3"), Pipe::Uniform);
    assert_eq!(of("ULDC.64"), Pipe::Constant);
    assert_eq!(of("BAR.SYNC.DEFER_BLOCKING"), Pipe::Control);
}

#[test]
fn products_are_those_of_the_shape_and_an_unknown_shape_is_an_error() {
    for (opcode, m, n, k) in [
        ("HMMA.16816.F32.BF16", 16, 8, 16),
        ("IMMA.16832.S8.S8", 16, 8, 32),
        ("HMMA.1688.F32", 16, 8, 8),
        ("DMMA.8x8x4", 8, 8, 4),
    ] {
        let instruction = instruction(opcode);
        assert_eq!(Pipe::of(&instruction).unwrap(), Pipe::Tensor);
        assert_eq!(products(&instruction).unwrap(), m * n * k, "{opcode}");
    }
    for opcode in ["HMMA.8x32x16.F32", "DMMA.64x64x64", "HMMA.F32"] {
        let error = products(&instruction(opcode)).unwrap_err().to_string();
        assert!(error.starts_with(opcode), "{error}");
    }
}

#[test]
fn what_is_not_known_or_not_measured_is_an_error_that_names_it() {
    for opcode in ["HGMMA.64x32x16.F32", "QGMMA.64x8x32.F32", "IGMMA.64x8x32.S8.S8", "WARPGROUP.ARRIVE"] {
        let error = Pipe::of(&instruction(opcode)).unwrap_err().to_string();
        assert!(error.starts_with(opcode) && error.contains("wgmma"), "{error}");
    }
    for opcode in ["UBLKCP.S.G", "UTMALDG.2D", "SYNCS.ARRIVE.TRANS64.A1T0"] {
        let error = Pipe::of(&instruction(opcode)).unwrap_err().to_string();
        assert!(error.starts_with(opcode) && error.contains("bulk copies"), "{error}");
    }
    for opcode in ["UTCHMMA", "UNEW", "LDT.x2"] {
        let error = Pipe::of(&instruction(opcode)).unwrap_err().to_string();
        assert!(error.starts_with(opcode) && error.contains("does not know"), "{error}");
    }
}

#[test]
fn a_kernel_with_an_instruction_that_is_not_measured_is_refused() {
    let text =
        ".text.k:\n/*0000*/ HGMMA.64x32x16.F32 R24 ; /* 0x1 */\n/* 0x2 */\n/*0010*/ EXIT ; /* 0x1 */\n/* 0x2 */\n";
    let function = parse(text).unwrap().remove(0);
    let error = format!("{:#}", measure(&function, &Launch::default()).unwrap_err());
    assert!(error.starts_with("k: HGMMA.64x32x16.F32"), "{error}");
}
