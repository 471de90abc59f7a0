//! A program as PTX.

use std::fmt::Write;

use super::{
    Callee, DEPTH, End, Function, KERNELS, Line, NARROW, NOT_CALLED, Op, PREDICATES, Program, QUADS, SLOTS, WIDE,
};

/// Parameters of every function: the inputs, the thread's own words, two numbers, and how many levels of calls are
/// left.
const PARAMETERS: &str = ".param .b64 in, .param .b64 mine, .param .b32 x, .param .b32 y, .param .b32 depth";

impl Program {
    /// The text of a module with kernels `F0` and `F1`, each of the addresses of inputs and outputs. `s` is 4096 bytes
    /// of shared memory.
    pub fn ptx(&self) -> String {
        let mut text = String::from(".version 9.0\n.target sm_90a\n.address_size 64\n.shared .align 16 .b8 s[4096];\n");
        for index in KERNELS..self.functions.len() {
            let _ = writeln!(text, ".func (.param .b32 result) F{index} ({PARAMETERS});");
        }
        for (index, function) in self.functions.iter().enumerate() {
            function.write(index, &mut text);
        }
        text
    }
}

impl Function {
    fn write(&self, index: usize, text: &mut String) {
        let is_kernel = index < KERNELS;
        *text += &if is_kernel {
            format!(".visible .entry F{index} (.param .u64 in, .param .u64 out)\n{{\n")
        } else {
            format!(".func (.param .b32 result) F{index} ({PARAMETERS})\n{{\n")
        };
        let _ = writeln!(
            text,
            ".reg .b32 %v<{NARROW}>; .reg .b64 %w<{WIDE}>; .reg .b128 %q<{QUADS}>; .reg .pred %p<{PREDICATES}>;\n\
             .reg .b32 %x, %y, %depth, %fuel, %t<4>; .reg .b64 %in, %mine, %a<4>; .reg .pred %empty, %c;\n\
             ld.param.u64 %in, [in];"
        );
        *text += &if is_kernel {
            format!(
                "mov.u32 %x, %tid.x;\nmov.u32 %y, %ctaid.x;\nmov.u32 %depth, {DEPTH};\nld.param.u64 %mine, [out];\n\
                 mov.u32 %t0, %ntid.x;\nmad.lo.u32 %t0, %t0, %y, %x;\nmad.wide.u32 %mine, %t0, {}, %mine;\n",
                4 * SLOTS
            )
        } else {
            "ld.param.u32 %x, [x];\nld.param.u32 %y, [y];\nld.param.u32 %depth, [depth];\nld.param.u64 %mine, [mine];\n"
                .into()
        };
        let _ = writeln!(text, "mov.u32 %fuel, {};", self.fuel);
        for (number, block) in self.blocks.iter().enumerate() {
            let _ = writeln!(text, "B{number}:");
            block.lines.iter().enumerate().for_each(|(at, line)| line.write(&format!("{number}_{at}"), text));
            self.write_end(number, is_kernel, text);
        }
        *text += "}\n";
    }

    fn write_end(&self, number: usize, is_kernel: bool, text: &mut String) {
        let last = self.blocks.len() - 1;
        let mut backwards = |is_backwards: bool| {
            if is_backwards {
                *text += "sub.u32 %fuel, %fuel, 1;\nsetp.eq.u32 %empty, %fuel, 0;\n";
                let _ = writeln!(text, "@%empty bra B{last};");
            }
        };
        match &self.blocks[number].end {
            End::Next => {}
            End::Jump(block) => {
                backwards(*block <= number);
                let _ = writeln!(text, "bra B{block};");
            }
            End::Branch { p, negated, block } => {
                backwards(*block <= number);
                let _ = writeln!(text, "@{}%p{p} bra B{block};", if *negated { "!" } else { "" });
            }
            End::Table { v, blocks } => {
                backwards(blocks.iter().any(|block| *block <= number));
                let list = blocks.iter().map(|block| format!("B{block}")).collect::<Vec<_>>().join(", ");
                let most = blocks.len() - 1;
                let _ = writeln!(
                    text,
                    "and.b32 %t0, %v{v}, {most};\nT{number}: .branchtargets {list};\nbrx.idx %t0, T{number};"
                );
            }
            End::Return(v) if is_kernel => {
                let _ = writeln!(text, "st.global.u32 [%mine], %v{v};\nret;");
            }
            End::Return(v) => {
                let _ = writeln!(text, "st.param.b32 [result], %v{v};\nret;");
            }
            End::Exit => *text += "exit;\n",
        }
    }
}

impl Line {
    fn write(&self, name: &str, text: &mut String) {
        let guard =
            self.guard.map_or(String::new(), |(p, negated)| format!("@{}%p{p} ", if negated { "!" } else { "" }));
        // Addresses and whether to call are made by lines without the guard.
        let (before, line) = match &self.op {
            Op::Constant { d, value } => (String::new(), format!("mov.u32 %v{d}, {value};")),
            Op::Argument { d, index } => (String::new(), format!("mov.u32 %v{d}, {};", ["%x", "%y"][*index])),
            Op::Binary { name, d, a, b } => (String::new(), format!("{name} %v{d}, %v{a}, %v{b};")),
            Op::Select { d, a, b, p } => (String::new(), format!("selp.b32 %v{d}, %v{a}, %v{b}, %p{p};")),
            Op::Compare { p, a, b } => (String::new(), format!("setp.lt.u32 %p{p}, %v{a}, %v{b};")),
            Op::MultiplyWide { w, a, b } => (String::new(), format!("mul.wide.u32 %w{w}, %v{a}, %v{b};")),
            Op::AddWide { w, a, b } => (String::new(), format!("add.s64 %w{w}, %w{a}, %w{b};")),
            Op::Cut { d, w } => (String::new(), format!("cvt.u32.u64 %v{d}, %w{w};")),
            Op::Pack { w, a, b } => (String::new(), format!("mov.b64 %w{w}, {{%v{a}, %v{b}}};")),
            Op::Unpack { d, high, w } => (String::new(), format!("mov.b64 {{%v{d}, %v{high}}}, %w{w};")),
            Op::PackQuad { q, a, b } => (String::new(), format!("mov.b128 %q{q}, {{%w{a}, %w{b}}};")),
            Op::UnpackQuad { w, high, q } => (String::new(), format!("mov.b128 {{%w{w}, %w{high}}}, %q{q};")),
            Op::Load { d, a } => (
                format!("and.b32 %t1, %v{a}, {};\nmad.wide.u32 %a0, %t1, 4, %in;\n", super::INPUTS - 1),
                format!("ld.global.u32 %v{d}, [%a0];"),
            ),
            Op::Store { slot, a } => (String::new(), format!("st.global.u32 [%mine+{}], %v{a};", 4 * slot)),
            Op::Raw(line) => (String::new(), line.clone()),
            Op::Call { d, callee, a, b } => return write_call(name, self.guard, *d, *callee, [*a, *b], text),
        };
        // Lines that the model does not know may have labels and guards of their own.
        let guard = if line.starts_with(['@', 'L']) { "" } else { &guard };
        let _ = writeln!(text, "{before}{guard}{line}");
    }
}

fn write_call(
    name: &str,
    guard: Option<(usize, bool)>,
    d: usize,
    callee: Callee,
    [a, b]: [usize; 2],
    text: &mut String,
) {
    let _ = writeln!(
        text,
        "{{\n.param .b64 in_; .param .b64 mine_; .param .b32 x_; .param .b32 y_; .param .b32 depth_; .param .b32 result_;\n\
         sub.u32 %t2, %depth, 1;\nst.param.b64 [in_], %in;\nst.param.b64 [mine_], %mine;\nst.param.b32 [x_], %v{a};\n\
         st.param.b32 [y_], %v{b};\nst.param.b32 [depth_], %t2;\nst.param.b32 [result_], {NOT_CALLED};\n\
         setp.ne.u32 %c, %depth, 0;"
    );
    if let Some((p, negated)) = guard {
        let _ = writeln!(text, "setp.ne.and.u32 %c, %depth, 0, {}%p{p};", if negated { "!" } else { "" });
    }
    let (target, prototype) = match callee {
        Callee::Direct(f) => (format!("F{f}"), String::new()),
        Callee::Either(f, g, p) => {
            let _ = writeln!(
                text,
                "mov.u64 %a1, F{f};\nmov.u64 %a2, F{g};\nselp.b64 %a3, %a1, %a2, %p{p};\nP{name}: .callprototype (.param .b32 _) \
                 _ (.param .b64 _, .param .b64 _, .param .b32 _, .param .b32 _, .param .b32 _);"
            );
            ("%a3".into(), format!(", P{name}"))
        }
    };
    let _ = writeln!(
        text,
        "@%c call (result_), {target}, (in_, mine_, x_, y_, depth_){prototype};\nld.param.b32 %v{d}, [result_];\n}}"
    );
}
