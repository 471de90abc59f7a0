//! What a case is, and short ways to write one.

use ptx_sim::tensor_map::Tiled;

use crate::inputs::{Element, rows};

/// What makes the rows of results of the rows of operands. Cases are run where a panic is caught.
pub type Expected = dyn Fn(&[Vec<u64>]) -> Vec<Vec<u64>> + std::panic::RefUnwindSafe;

/// One kernel, its inputs, and what it has to make of them.
pub struct Case {
    /// Name of the `.ptx` file, without the ending.
    pub file: &'static str,
    /// Name of the kernel.
    pub kernel: String,
    /// Instruction that the kernel's PTX must have.
    pub instruction: String,
    /// One row of 64-bit words per thread.
    pub rows: Vec<Vec<u64>>,
    /// Words per row of results.
    pub outputs: usize,
    /// Results of all rows: kernels of a warp or block exchange values.
    pub expected: Box<Expected>,
    pub tolerance: Tolerance,
    /// Threads per block.
    pub threads: u32,
    /// Blocks per cluster, along x; 1 for a launch without clusters. The rows fill whole clusters.
    pub cluster: u32,
    pub dynamic_shared: usize,
    /// Bytes of the parameter block behind `n`, padding included.
    pub extra: Vec<u8>,
    /// How often a GPU launches the kernel, before the results of the last time are read.
    pub launches: u32,
    /// Tensor maps behind these, each at the next multiple of 128 bytes; the back end makes them.
    pub maps: Vec<Map>,
}

/// A tensor map of one of the kernel's arrays.
#[derive(Clone, Debug)]
pub struct Map {
    /// Whether the tensor lies in `out`; otherwise in `in`.
    pub output: bool,
    /// The tensor; its address counts from the array's beginning.
    pub tiled: Tiled,
}

impl Map {
    /// The tensor where the arrays lie.
    pub fn at(&self, input: u64, output: u64) -> Tiled {
        let base = if self.output { output } else { input };
        Tiled { global_address: base + self.tiled.global_address, ..self.tiled.clone() }
    }
}

/// How close a result has to be.
#[derive(Clone, Copy, Debug)]
pub enum Tolerance {
    Exact,
    /// Bits of the format, the payload of a NaN being unspecified (PTX ISA 9.7.3).
    Number(Format),
    /// f32 bits, within so many units in the last place of the expected result.
    Ulp(u32),
    /// Numbers of the format, within the larger of `relative * |expected|` and `absolute`.
    Within {
        format: Format,
        relative: f64,
        absolute: f64,
    },
    /// The same, of both 16-bit halves of a word.
    HalvesWithin {
        format: Format,
        relative: f64,
        absolute: f64,
    },
}

/// How the bits of an approximate result are read.
#[derive(Clone, Copy, Debug)]
pub enum Format {
    F32,
    F64,
    F16,
    Bf16,
}

impl Format {
    pub fn value(self, bits: u64) -> f64 {
        match self {
            Self::F32 => f32::from_bits(bits as u32).into(),
            Self::F64 => f64::from_bits(bits),
            Self::F16 => half::f16::from_bits(bits as u16).to_f64(),
            Self::Bf16 => half::bf16::from_bits(bits as u16).to_f64(),
        }
    }
}

impl Tolerance {
    /// Whether `got` is near enough to `want`.
    pub fn accepts(self, got: u64, want: u64) -> bool {
        let close = |got: f64, want: f64, most: f64| (got.is_nan() && want.is_nan()) || (got - want).abs() <= most;
        got == want
            || match self {
                Self::Exact => false,
                Self::Number(format) => format.value(got).is_nan() && format.value(want).is_nan(),
                // As integers with the sign taken into account, neighbours differ by one.
                Self::Ulp(most) => {
                    let ordered = |bits: u64| match (bits & 0x7FFF_FFFF) as i64 {
                        size if bits >> 31 & 1 == 1 => -size,
                        size => size,
                    };
                    let nan = |bits: u64| bits & 0x7FFF_FFFF > 0x7F80_0000;
                    nan(got) == nan(want) && ordered(got).abs_diff(ordered(want)) <= most.into()
                }
                Self::Within { format, relative, absolute } => {
                    let (got, want) = (format.value(got), format.value(want));
                    close(got, want, (relative * want.abs()).max(absolute)) || got == want
                }
                Self::HalvesWithin { format, relative, absolute } => {
                    let one = Self::Within { format, relative, absolute };
                    one.accepts(got & 0xFFFF, want & 0xFFFF) && one.accepts(got >> 16, want >> 16)
                }
            }
    }
}

impl Case {
    /// A kernel that is a function of each thread's row.
    pub fn of(
        file: &'static str,
        instruction: &str,
        outputs: usize,
        rows: Vec<Vec<u64>>,
        f: impl Fn(&[u64]) -> Vec<u64> + std::panic::RefUnwindSafe + 'static,
    ) -> Self {
        Self {
            file,
            kernel: instruction.replace(['.', ':'], "_"),
            instruction: instruction.into(),
            rows,
            outputs,
            expected: Box::new(move |rows| rows.iter().map(|row| f(row)).collect()),
            tolerance: Tolerance::Exact,
            threads: 128,
            cluster: 1,
            dynamic_shared: 0,
            extra: Vec::new(),
            launches: 1,
            maps: Vec::new(),
        }
    }

    /// A kernel of one instruction with one result, on edges and random values of its operands' types.
    pub fn new(
        file: &'static str,
        instruction: &str,
        operands: &[Element],
        f: impl Fn(&[u64]) -> u64 + std::panic::RefUnwindSafe + 'static,
    ) -> Self {
        Self::of(file, instruction, 1, rows(operands), move |row| vec![f(row)])
    }

    /// A kernel whose threads exchange values.
    pub fn all(
        file: &'static str,
        kernel: &str,
        instruction: &str,
        outputs: usize,
        rows: Vec<Vec<u64>>,
        f: impl Fn(&[Vec<u64>]) -> Vec<Vec<u64>> + std::panic::RefUnwindSafe + 'static,
    ) -> Self {
        let case = Self::of(file, instruction, outputs, rows, |_| Vec::new());
        Self { kernel: kernel.into(), expected: Box::new(f), ..case }
    }

    /// The same under a name that is not its instruction's.
    pub fn named(self, kernel: &str) -> Self {
        Self { kernel: kernel.into(), ..self }
    }

    pub fn within(self, tolerance: Tolerance) -> Self {
        Self { tolerance, ..self }
    }
}
