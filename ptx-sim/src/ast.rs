//! PTX as written: what the parser makes of a file, before anything knows what an instruction means.
//!
//! Names are those of the PTX ISA (sections 4 and 5). Every item carries the line it began on, counted from 1.

/// A PTX file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// `.version`, for example `(9, 0)`.
    pub version: (u32, u32),
    /// `.target`, for example `["sm_90a"]`.
    pub target: Vec<String>,
    /// `.address_size`: 32 or 64.
    pub address_size: u32,
    /// Variables outside of functions.
    pub variables: Vec<Variable>,
    /// Kernels and device functions, in order; declarations without a body included.
    pub functions: Vec<Function>,
    /// `.file`: number and path, which [`Location::file`] refers to.
    pub files: Vec<(u32, String)>,
}

/// A state space (PTX ISA section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// `.reg`
    Reg,
    /// `.const`
    Const,
    /// `.global`
    Global,
    /// `.local`
    Local,
    /// `.param`
    Param,
    /// `.shared`
    Shared,
}

/// A fundamental type (PTX ISA section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each variant is the type of its name.
pub enum Type {
    S8,
    S16,
    S32,
    S64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    B8,
    B16,
    B32,
    B64,
    B128,
    Pred,
}

impl Type {
    /// Bytes in memory; 0 for predicates, which have none.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Pred => 0,
            Self::S8 | Self::U8 | Self::B8 => 1,
            Self::S16 | Self::U16 | Self::F16 | Self::Bf16 | Self::B16 => 2,
            Self::S32 | Self::U32 | Self::F16x2 | Self::Bf16x2 | Self::Tf32 | Self::F32 | Self::B32 => 4,
            Self::S64 | Self::U64 | Self::F64 | Self::B64 => 8,
            Self::B128 => 16,
        }
    }

    /// Its name without the dot, such as `u32` or `bf16x2`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S8 => "s8",
            Self::S16 => "s16",
            Self::S32 => "s32",
            Self::S64 => "s64",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::F16 => "f16",
            Self::F16x2 => "f16x2",
            Self::Bf16 => "bf16",
            Self::Bf16x2 => "bf16x2",
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::B8 => "b8",
            Self::B16 => "b16",
            Self::B32 => "b32",
            Self::B64 => "b64",
            Self::B128 => "b128",
            Self::Pred => "pred",
        }
    }

    /// The type of a name such as `u32` or `bf16x2` (without the dot).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "b128" => Self::B128,
            "pred" => Self::Pred,
            _ => return None,
        })
    }
}

/// A variable in memory, or a parameter: `.shared .align 16 .b8 tile[1024];`
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its state space.
    pub space: Space,
    /// Type of an element.
    pub ty: Type,
    /// Elements per vector: 1, 2 or 4 (`.v2`, `.v4`).
    pub vector: usize,
    /// Number of elements (product of all dimensions); `None` for `name[]`, sized at launch.
    pub count: Option<usize>,
    /// Alignment in bytes: `.align`, or the natural one.
    pub align: usize,
    /// Initial value; empty if there is none, shorter than the variable if the rest is zero.
    pub init: Vec<Initializer>,
    /// Whether it is `.extern`.
    pub external: bool,
    /// Where it was declared.
    pub line: u32,
}

/// One element of an initial value.
#[derive(Clone, Debug, PartialEq)]
pub enum Initializer {
    /// The element's bits.
    Bits(u64),
    /// The address of another variable plus an offset; `generic` if written `generic(name)`.
    Address {
        /// The variable or function.
        name: String,
        /// Bytes added.
        offset: i64,
        /// Whether the address is converted to the generic space.
        generic: bool,
    },
}

/// A kernel (`.entry`) or device function (`.func`).
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Whether it is a kernel.
    pub entry: bool,
    /// Return parameters, `.param` or `.reg` variables.
    pub returns: Vec<Variable>,
    /// Parameters.
    pub params: Vec<Variable>,
    /// Performance directives such as `.maxntid 128, 1, 1` or `.explicitcluster`: name without the dot, and numbers.
    pub directives: Vec<(String, Vec<u32>)>,
    /// `None` for a declaration.
    pub body: Option<Vec<Statement>>,
    /// Where it begins.
    pub line: u32,
}

/// One statement of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `name:`
    Label(String),
    /// `{`: names declared until the matching [`Statement::Close`] are local to it.
    Open,
    /// `}`
    Close,
    /// `.reg .b32 %r<41>;` declares `%r0`..`%r40`, and `.reg .pred p, q;` two single registers.
    Registers {
        /// Type of each register.
        ty: Type,
        /// Elements of each register: 1, 2 or 4.
        vector: usize,
        /// Name, and the number of parameterised registers if it is followed by `<n>`.
        names: Vec<(String, Option<u32>)>,
    },
    /// A variable of the body: `.shared`, `.local` or `.param`.
    Variable(Variable),
    /// `.loc`: where the following instructions come from.
    Location(Location),
    /// `$table: .branchtargets a, b;` for `brx.idx`.
    BranchTargets {
        /// The table's label.
        name: String,
        /// The labels it lists.
        targets: Vec<String>,
    },
    /// `$proto: .callprototype ...` or `.calltargets ...`, kept by name.
    CallPrototype(String),
    /// An instruction.
    Instruction(Instruction),
}

/// A place in the CUDA source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// Number in [`Module::files`].
    pub file: u32,
    /// Line in that file. For inlined code this is the inlined line.
    pub line: u32,
    /// Column in that line.
    pub column: u32,
    /// Where the code was inlined into: `inlined_at file line column`.
    pub inlined_at: Option<(u32, u32, u32)>,
}

/// An instruction: `@!%p1 ld.global.v2.f32 {%f1, %f2}, [%rd1+8];`
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// Guard register, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The opcode's parts: `["ld", "global", "v2", "f32"]`. A part keeps its colons: `shared::cta`, `L2::128B`.
    pub opcode: Vec<String>,
    /// Its operands, destination first.
    pub operands: Vec<Operand>,
    /// Where it stands.
    pub line: u32,
}

impl Instruction {
    /// The opcode as written.
    #[must_use]
    pub fn name(&self) -> String {
        self.opcode.join(".")
    }
}

/// An operand (PTX ISA section 6).
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, a special register (`%tid.x`), a variable, a function or a label; what it is depends on
    /// declarations. A register's vector element keeps its suffix: `%v.x`.
    Name(String),
    /// An integer constant's value as 64 bits (negative ones in two's complement).
    Integer(u64),
    /// `0f3F800000`: a float constant's 32 bits.
    F32(u32),
    /// `0d3FF0000000000000` or a decimal constant such as `1.5`: a double's 64 bits.
    F64(u64),
    /// `[base+offset]`.
    Address {
        /// Register, variable or number in front.
        base: Box<Operand>,
        /// Bytes added.
        offset: i64,
    },
    /// `[a, {b, c}]`: the address of a tensor copy.
    TensorAddress(Vec<Operand>),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `a|b`: two destinations, as in `shfl.sync` and `setp`.
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`.
    Not(Box<Operand>),
    /// `-r` in front of a register, as some instructions allow.
    Negative(Box<Operand>),
    /// `_`: a result nobody wants.
    Sink,
    /// `(a, b)`: the argument or result list of a call.
    List(Vec<Operand>),
    /// `name+offset` of a variable, as in `mov.u64 %rd1, table+16`.
    Sum {
        /// The variable.
        name: String,
        /// Bytes added.
        offset: i64,
    },
}
