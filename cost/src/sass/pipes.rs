//! Which part of a multiprocessor executes an instruction, and for how long: what of it is public, in whole cycles.

use super::parse::Instruction;

/// The parts of a scheduler's quarter of a multiprocessor, and those that the quarters share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pipe {
    /// Logic, shifts, permutations, comparisons, selections, additions of integers: 16 lanes per cycle.
    Alu,
    /// Multiplications and fused multiply-adds of f32, packed f16 and integers: 32 lanes per cycle, 16 of integers.
    Fma,
    /// Approximations, conversions between integers and floats, bit searches: 4 lanes per cycle.
    Special,
    /// Tensor cores.
    Tensor,
    /// Loads, stores, shuffles, asynchronous copies: shared by the quarters.
    LoadStore,
    /// The warp's uniform registers.
    Uniform,
    /// Constants.
    Constant,
    /// Branches, barriers and what else changes where warps go on.
    Control,
}

impl Pipe {
    /// What executes an instruction.
    #[must_use]
    pub fn of(instruction: &Instruction) -> Self {
        match instruction.mnemonic() {
            "FFMA" | "FMUL" | "FADD" | "HFMA2" | "HMUL2" | "HADD2" | "IMAD" | "IDP" | "IMUL" | "FSWZADD" => Self::Fma,
            "MUFU" | "I2F" | "F2I" | "F2F" | "FRND" | "FLO" | "POPC" | "BREV" | "I2I" => Self::Special,
            name if name.ends_with("MMA") => Self::Tensor,
            "LDS" | "STS" | "LDSM" | "STSM" | "LDG" | "STG" | "LD" | "ST" | "LDL" | "STL" | "LDGSTS" | "SHFL"
            | "ATOM" | "ATOMG" | "ATOMS" | "RED" | "REDG" | "UBLKCP" | "UTMALDG" | "UTMASTG" | "UBLKRED" | "CCTL"
            | "MATCH" | "SYNCS" => Self::LoadStore,
            "LDC" | "ULDC" | "LDCU" => Self::Constant,
            "BRA" | "EXIT" | "RET" | "BRX" | "JMP" | "JMX" | "CALL" | "BSSY" | "BSYNC" | "BAR" | "B2R" | "DEPBAR"
            | "LDGDEPBAR" | "WARPSYNC" | "ENDCOLLECTIVE" | "BREAK" | "KILL" | "NANOSLEEP" | "YIELD" | "NOP"
            | "MEMBAR" | "ERRBAR" | "FENCE" | "BMOV" | "ARRIVES" | "ELECT" | "WARPGROUP" | "USETMAXREG" | "ACQBULK"
            | "PREEXIT" => Self::Control,
            "S2UR" | "R2UR" | "VOTEU" | "REDUX" | "CREDUX" => Self::Uniform,
            name if name.starts_with('U') => Self::Uniform,
            _ => Self::Alu,
        }
    }
}

/// Cycles for which it keeps its pipe from others of the same quarter; tensor cores are counted by their own rate, loads
/// and stores by their wavefronts.
#[must_use]
pub fn occupies(instruction: &Instruction) -> u32 {
    match Pipe::of(instruction) {
        Pipe::Alu => 2,
        Pipe::Fma if instruction.mnemonic() == "IMAD" => 2,
        Pipe::Fma => 1,
        Pipe::Special => 8,
        _ => 0,
    }
}

/// Multiplications and additions of one tensor-core instruction of a warp, by the shape in its name: `HMMA.16816` is
/// 16 x 8 x 16. None of other instructions, and of shapes that are not known.
#[must_use]
pub fn products(instruction: &Instruction) -> Option<u64> {
    if Pipe::of(instruction) != Pipe::Tensor {
        return None;
    }
    let mut shape = instruction.opcode.split('.').skip(1).filter_map(|part| match part {
        "1688" => Some(16 * 8 * 8),
        "1684" => Some(16 * 8 * 4),
        "16816" => Some(16 * 8 * 16),
        "16832" => Some(16 * 8 * 32),
        "16864" => Some(16 * 8 * 64),
        part => warpgroup_products(part),
    });
    shape.next()
}

/// `64x32x16` of `HGMMA.64x32x16`: a warpgroup's, of which each of its four warps does a quarter.
fn warpgroup_products(part: &str) -> Option<u64> {
    let sizes: Vec<u64> = part.split('x').map(str::parse).collect::<Result<_, _>>().ok()?;
    (sizes.len() == 3).then(|| sizes.iter().product::<u64>() / 4)
}

/// Cycles of a load from global memory: between what public measurements of Hopper say of its L2 cache (about 270) and of
/// the memory behind (above 600).
pub const GLOBAL: u32 = 450;

/// Cycles until a result is there for which instructions wait by scoreboard: of a warp that is alone, without conflicts.
///
/// Fixed latencies are in the stall counts. These are assumed, from public measurements of Ampere and Hopper, to the
/// nearest few cycles.
#[must_use]
pub fn latency(instruction: &Instruction) -> u32 {
    match instruction.mnemonic() {
        "LDG" | "LD" | "LDL" | "ATOM" | "ATOMG" => GLOBAL,
        "LDS" | "LDSM" | "ATOMS" => 30,
        "SHFL" | "MATCH" => 24,
        "MUFU" | "FLO" | "POPC" | "BREV" | "I2F" | "F2I" | "F2F" | "FRND" => 20,
        "LDC" | "ULDC" | "LDCU" => 30,
        "S2R" | "S2UR" | "B2R" => 25,
        "REDUX" | "CREDUX" => 30,
        "HMMA" | "IMMA" | "QMMA" | "BMMA" => 33,
        "DMMA" => 40,
        _ => 12,
    }
}

/// Cycles until an instruction has read its operands, for those that tell so by scoreboard.
pub const OPERANDS_READ: u32 = 14;
