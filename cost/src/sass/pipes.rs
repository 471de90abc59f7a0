//! Which part of a multiprocessor executes an instruction, and for how long: what of it is public, in whole cycles.

use anyhow::{Context as _, Result, bail};

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
    ///
    /// # Errors
    /// Names the instruction if it is none of those that are known, or one whose rate nobody has measured yet: products of
    /// warpgroups, bulk and tensor copies, `mbarrier`. A guess would be a count like any other to whoever reads it.
    pub fn of(instruction: &Instruction) -> Result<Self> {
        Ok(match instruction.mnemonic() {
            "FFMA" | "FMUL" | "FADD" | "HFMA2" | "HMUL2" | "HADD2" | "IMAD" | "IDP" | "IMUL" | "FSWZADD" => Self::Fma,
            "MUFU" | "I2F" | "F2I" | "F2F" | "FRND" | "FLO" | "POPC" | "BREV" | "I2I" => Self::Special,
            "HMMA" | "IMMA" | "QMMA" | "BMMA" | "DMMA" => Self::Tensor,
            "LDS" | "STS" | "LDSM" | "STSM" | "LDG" | "STG" | "LD" | "ST" | "LDL" | "STL" | "LDGSTS" | "SHFL"
            | "MOVM" | "ATOM" | "ATOMG" | "ATOMS" | "RED" | "REDG" | "CCTL" | "MATCH" => Self::LoadStore,
            "LDC" | "ULDC" | "LDCU" => Self::Constant,
            "BRA" | "EXIT" | "RET" | "BRX" | "JMP" | "JMX" | "CALL" | "BSSY" | "BSYNC" | "BAR" | "B2R" | "DEPBAR"
            | "LDGDEPBAR" | "WARPSYNC" | "ENDCOLLECTIVE" | "BREAK" | "KILL" | "NANOSLEEP" | "YIELD" | "NOP"
            | "MEMBAR" | "ERRBAR" | "CGAERRBAR" | "FENCE" | "BMOV" | "ELECT" | "ACQBULK" | "PREEXIT" | "BPT" => {
                Self::Control
            }
            "S2UR" | "R2UR" | "VOTEU" | "REDUX" | "CREDUX" | "UBREV" | "UF2I" | "UFADD" | "UFFMA" | "UFLO"
            | "UFMUL" | "UFSEL" | "UFSETP" | "UI2F" | "UIADD3" | "UIMAD" | "UISETP" | "ULEA" | "ULOP3" | "UMOV"
            | "UP2UR" | "UPLOP3" | "UPOPC" | "UPRMT" | "USEL" | "USGXT" | "USHF" | "UVIADD" | "UVIMNMX" => {
                Self::Uniform
            }
            "CS2R" | "F2FP" | "FCHK" | "FMNMX" | "FMNMX3" | "FSEL" | "FSET" | "FSETP" | "HMNMX2" | "HSET2"
            | "HSETP2" | "I2FP" | "IABS" | "IADD" | "IADD3" | "IMNMX" | "ISETP" | "LEA" | "LOP3" | "MOV" | "P2R"
            | "PLOP3" | "PRMT" | "R2P" | "S2R" | "SEL" | "SGXT" | "SHF" | "VABSDIFF" | "VIADD" | "VIADDMNMX"
            | "VHMNMX" | "VIMNMX" | "VIMNMX3" | "VOTE" => Self::Alu,
            "HGMMA" | "QGMMA" | "IGMMA" | "BGMMA" | "WARPGROUP" | "WARPGROUPSET" | "USETMAXREG" => bail!(
                "{}: the rates of wgmma's products, and what overlaps with them, are not measured yet",
                instruction.opcode
            ),
            "UBLKCP" | "UBLKPF" | "UBLKRED" | "UTMALDG" | "UTMASTG" | "UTMAPF" | "UTMAREDG" | "UTMACCTL"
            | "UTMACMDFLUSH" | "SYNCS" | "ARRIVES" => {
                bail!("{}: the rates of bulk copies and their mbarriers are not measured yet", instruction.opcode)
            }
            _ => bail!("{}: the cost model does not know what executes this instruction", instruction.opcode),
        })
    }
}

/// Cycles for which an instruction keeps its pipe from others of the same quarter; tensor cores are counted by their own
/// rate, loads and stores by their wavefronts.
#[must_use]
pub fn occupies(instruction: &Instruction, pipe: Pipe) -> u32 {
    match pipe {
        Pipe::Alu => 2,
        Pipe::Fma if instruction.mnemonic() == "IMAD" => 2,
        Pipe::Fma => 1,
        Pipe::Special => 8,
        Pipe::Tensor | Pipe::LoadStore | Pipe::Uniform | Pipe::Constant | Pipe::Control => 0,
    }
}

/// Multiplications and additions of one tensor-core instruction of a warp, by the shape in its name: `HMMA.16816` is
/// 16 x 8 x 16, `DMMA.8x8x4` that.
///
/// # Errors
/// Names the instruction if its shape is none of those that are known.
pub fn products(instruction: &Instruction) -> Result<u64> {
    let shape = |part: &str| match part {
        "8x8x4" => Some(8 * 8 * 4),
        "1684" => Some(16 * 8 * 4),
        "1688" => Some(16 * 8 * 8),
        "16816" => Some(16 * 8 * 16),
        "16832" => Some(16 * 8 * 32),
        "16864" => Some(16 * 8 * 64),
        _ => None,
    };
    let mut shapes = instruction.opcode.split('.').skip(1).filter_map(shape);
    shapes.next().with_context(|| format!("{}: a tensor-core product of a shape that is not known", instruction.opcode))
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
        "SHFL" | "MATCH" | "MOVM" => 24,
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
