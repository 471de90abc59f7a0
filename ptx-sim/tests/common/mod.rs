//! Runs PTX snippets on lanes of given values.
#![allow(dead_code)] // Each test file uses its own part of this.

pub mod exact;

use ptx_sim::{Launch, LoadError, Machine, Report};

/// Threads per block: one warp, so that a snippet may use warp-wide instructions.
const LANES: usize = 32;

/// A snippet and the types of its inputs and outputs.
///
/// The snippet reads registers `%x0`, `%x1`, ... and writes `%y0`, `%y1`, ...; each is declared with the type of its
/// name in `inputs` or `outputs`: `b16`, `b32`, `b64` or `pred`. `%t0`..`%t15` are spare registers of `b32`,
/// `%d0`..`%d15` of `b64`, `%h0`..`%h15` of `b16`, `%p0`..`%p15` of `pred`.
pub struct Snippet<'a> {
    pub inputs: &'a [&'a str],
    pub outputs: &'a [&'a str],
    pub body: &'a str,
}

impl Snippet<'_> {
    /// The module: a kernel `k` of two pointers, to rows of inputs and to rows of outputs, one row per thread and
    /// eight bytes per value.
    pub fn ptx(&self) -> String {
        let mut text = String::from(
            ".version 9.0\n.target sm_90a\n.address_size 64\n\
             .visible .entry k(.param .u64 in, .param .u64 out)\n{\n\
             .reg .b32 %t<16>, %own<4>;\n.reg .b64 %d<16>, %at<4>;\n.reg .b16 %h<16>;\n.reg .pred %p<16>;\n",
        );
        for (name, types) in [("x", self.inputs), ("y", self.outputs)] {
            for (i, ty) in types.iter().enumerate() {
                text += &format!(".reg .{ty} %{name}{i};\n");
            }
        }
        let (inputs, outputs) = (8 * self.inputs.len(), 8 * self.outputs.len());
        text += &format!(
            "ld.param.u64 %at0, [in];\nld.param.u64 %at1, [out];\n\
             mov.u32 %own0, %ctaid.x;\nmov.u32 %own1, %tid.x;\nmad.lo.u32 %own0, %own0, {LANES}, %own1;\n\
             mad.wide.u32 %at0, %own0, {inputs}, %at0;\nmad.wide.u32 %at1, %own0, {outputs}, %at1;\n"
        );
        for (i, ty) in self.inputs.iter().enumerate() {
            text += &match *ty {
                "pred" => format!("ld.global.b32 %own1, [%at0+{}];\nsetp.ne.u32 %x{i}, %own1, 0;\n", 8 * i),
                ty => format!("ld.global.{ty} %x{i}, [%at0+{}];\n", 8 * i),
            };
        }
        text += &format!("{{\n{}\n}}\n", self.body);
        for (i, ty) in self.outputs.iter().enumerate() {
            text += &match *ty {
                "pred" => format!("selp.b32 %own1, 1, 0, %y{i};\nst.global.b32 [%at1+{}], %own1;\n", 8 * i),
                ty => format!("st.global.{ty} [%at1+{}], %y{i};\n", 8 * i),
            };
        }
        text + "ret;\n}\n"
    }

    /// Runs one thread per row of inputs; the last warp is filled with copies of the last row. Returns each row's
    /// outputs, and the launch's report.
    pub fn report(&self, rows: &[Vec<u64>]) -> (Vec<Vec<u64>>, Report) {
        let ptx = self.ptx();
        let mut machine = Machine::default();
        let module = machine.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let warps = rows.len().div_ceil(LANES);
        let padded = || (0..warps * LANES).map(|row| &rows[row.min(rows.len() - 1)]);
        let bytes: Vec<u8> = padded().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let width = self.outputs.len();
        let input = machine.memory.allocate(bytes.len().max(8)).unwrap();
        let output = machine.memory.allocate(8 * width * warps * LANES).unwrap();
        machine.memory.write(input, &bytes).unwrap();
        // Narrow results leave the rest of their eight bytes as they were.
        machine.memory.write(output, &vec![0; 8 * width * warps * LANES]).unwrap();
        let params: Vec<u8> = [input, output].iter().flat_map(|pointer| pointer.to_le_bytes()).collect();
        let launch = Launch::new([warps as u32, 1, 1], [LANES as u32, 1, 1]);
        let report = machine.launch(&module, "k", &launch, &params).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
        let mut result = vec![0; 8 * width * rows.len()];
        machine.memory.read(output, &mut result).unwrap();
        let values: Vec<u64> =
            result.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        (values.chunks_exact(width).map(<[u64]>::to_vec).collect(), report)
    }

    /// The outputs of each row.
    pub fn run(&self, rows: &[Vec<u64>]) -> Vec<Vec<u64>> {
        self.report(rows).0
    }

    /// Checks the only output of each row against `expected`.
    pub fn check(&self, rows: &[Vec<u64>], expected: impl Fn(&[u64]) -> u64) {
        for (row, result) in rows.iter().zip(self.run(rows)) {
            let wanted = expected(row);
            assert_eq!(result, [wanted], "`{}` of {row:#x?}: got {:#x}, expected {wanted:#x}", self.body, result[0]);
        }
    }

    /// Why the snippet cannot be loaded, and the number of its first line in the module.
    pub fn refusal(&self) -> (String, u32) {
        let ptx = self.ptx();
        let first = ptx.lines().position(|text| Some(text) == self.body.lines().next()).map_or(0, |i| i as u32 + 1);
        match Machine::default().load(&ptx) {
            Ok(_) => panic!("accepted:\n{}", self.body),
            Err(LoadError::Decode(error)) => (error.to_string(), first),
            Err(LoadError::Parse(error)) => panic!("{error}\n{ptx}"),
        }
    }
}

/// Evaluates one instruction on rows of 32-bit values.
pub fn evaluate32(body: &str, rows: &[Vec<u32>]) -> Vec<u32> {
    let inputs = vec!["b32"; rows[0].len()];
    let rows: Vec<Vec<u64>> = rows.iter().map(|row| row.iter().map(|&v| v.into()).collect()).collect();
    let snippet = Snippet { inputs: &inputs, outputs: &["b32"], body };
    snippet.run(&rows).into_iter().map(|row| row[0] as u32).collect()
}

/// A reproducible source of numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// All pairs of `edges`, and `count` rows of random numbers, `width` numbers a row and `bits` bits a number.
pub fn rows(edges: &[u64], width: usize, bits: u32, count: usize) -> Vec<Vec<u64>> {
    let mask = u64::MAX >> (64 - bits);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut rows = Vec::new();
    for index in 0..edges.len().pow(width as u32) {
        let mut rest = index;
        let mut edge = || {
            let value = edges[rest % edges.len()];
            rest /= edges.len();
            value & mask
        };
        rows.push((0..width).map(|_| edge()).collect());
    }
    // Half of the random numbers have few bits set, so that carries, signs and magnitudes vary.
    rows.extend((0..count).map(|i| {
        let mut value =
            || if i % 2 == 0 { random.next() & mask } else { random.next() & random.next() >> (i % 64) & mask };
        (0..width).map(|_| value()).collect()
    }));
    rows
}
