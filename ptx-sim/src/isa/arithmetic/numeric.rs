//! What the arithmetic families share: lanes as typed values, and closures made of functions on them.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use crate::ast::Type;
use crate::decode::{DecodeError, Operands};
use crate::exec::{Context, Kernel, LANES, Lanes, Outcome, Source, Vectors, Word, run_vectors};
use crate::fault::Fault;
use crate::isa::Decoded;
use crate::meter::Class;

use super::rounding::{Format, f32_to_odd};

/// A value of one lane: made of a register's bits, and written back zero-extended.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// How constants in its place are read.
    const TYPE: Type;
    /// The words of registers that it is in.
    type Word: Word;
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;

    /// The value in a lane's word.
    #[inline(always)]
    fn load(word: Self::Word) -> Self {
        Self::of(word.into())
    }

    /// The value as a lane's word.
    #[inline(always)]
    fn store(self) -> Self::Word {
        Self::Word::cut(self.bits())
    }
}

macro_rules! integer_element {
    ($($int:ty, $unsigned:ty, $word:ty, $ty:ident;)*) => { $(
        impl Element for $int {
            const TYPE: Type = Type::$ty;
            type Word = $word;
            #[inline]
            fn of(bits: u64) -> Self {
                bits as $int
            }
            #[inline]
            fn bits(self) -> u64 {
                self as $unsigned as u64
            }
        }
    )* };
}

integer_element! {
    u8, u8, u32, U8; i8, u8, u32, S8; u16, u16, u32, U16; i16, u16, u32, S16;
    u32, u32, u32, U32; i32, u32, u32, S32; u64, u64, u64, U64; i64, u64, u64, S64;
}

impl Element for f32 {
    const TYPE: Type = Type::F32;
    type Word = u32;
    #[inline]
    fn of(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }
    #[inline]
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Element for f64 {
    const TYPE: Type = Type::F64;
    type Word = u64;
    #[inline]
    fn of(bits: u64) -> Self {
        Self::from_bits(bits)
    }
    #[inline]
    fn bits(self) -> u64 {
        self.to_bits()
    }
}

/// Two 16-bit values in 32 bits, the low one first.
#[derive(Clone, Copy)]
pub(super) struct Pair<T>(pub [T; 2]);

impl<T: Element> Element for Pair<T> {
    const TYPE: Type = Type::B32;
    type Word = u32;
    #[inline]
    fn of(bits: u64) -> Self {
        Self([T::of(bits & 0xFFFF), T::of(bits >> 16 & 0xFFFF)])
    }
    #[inline]
    fn bits(self) -> u64 {
        self.0[0].bits() | self.0[1].bits() << 16
    }
}

impl<T: Copy> Pair<T> {
    /// Applies a function to both halves.
    #[inline]
    pub fn each<const N: usize, R>(values: [Self; N], f: impl Fn([T; N]) -> R) -> Pair<R> {
        Pair([f(values.map(|pair| pair.0[0])), f(values.map(|pair| pair.0[1]))])
    }
}

/// Lanes of one operand of an instruction on [`Element`]s.
type Column<E> = [<E as Element>::Word; LANES];

/// A function of `N` values of one type, as a loop over lanes. Nothing but the loop: it is compiled for every instruction
/// and every kind of vectors, so what does not depend on the function is done around it, in [`operands_of`] and
/// [`execute`].
struct Map<'a, T: Element, R: Element, F, const N: usize> {
    columns: [&'a Column<T>; N],
    f: &'a F,
    result: &'a mut Column<R>,
}

impl<T: Element, R: Element, F: Fn([T; N]) -> R, const N: usize> Kernel for Map<'_, T, R, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        for (lane, result) in self.result.iter_mut().enumerate() {
            *result = (self.f)(self.columns.map(|column| T::load(column[lane]))).store();
        }
    }
}

/// The destination of an instruction, and its `N` other operands.
#[inline(never)]
fn operands_of<const N: usize>(
    operands: &Operands,
    types: [Type; N],
) -> Result<(Option<usize>, [Source; N]), DecodeError> {
    operands.count(N + 1, N + 1)?;
    let target = operands.destination(0)?;
    let mut sources = [Source::Immediate(0); N];
    for (i, (source, ty)) in sources.iter_mut().zip(types).enumerate() {
        *source = operands.source(i + 1, ty)?;
    }
    Ok((target, sources))
}

/// Makes the lanes' results of the lanes' operands.
type Compute<'a, W, R, const N: usize> = dyn Fn([&[W; LANES]; N], &mut [R; LANES]) + 'a;

/// Executes an instruction of `N` operands in words of one width: `compute` makes the result of them.
#[inline(never)]
fn execute<W: Word, R: Word, const N: usize>(
    context: &mut Context,
    target: Option<usize>,
    sources: [Source; N],
    compute: &Compute<W, R, N>,
) -> Result<Outcome, Fault> {
    if let Some(target) = target {
        let mut result = [R::default(); LANES];
        compute(context.views(&sources, &mut [const { MaybeUninit::uninit() }; N]), &mut result);
        context.write_typed(target, &result);
    }
    Ok(Outcome::Next)
}

/// An instruction of `N` operands of one type, with a result of another.
fn mapped<T: Element, R: Element, const N: usize>(
    operands: &Operands,
    class: Class,
    f: impl Fn([T; N]) -> R + Send + Sync + 'static,
) -> Decoded {
    let (target, sources) = operands_of(operands, [T::TYPE; N])?;
    Ok(Some((class, Box::new(move |context| apply(context, target, sources, &f)))))
}

/// Executes an instruction of `N` operands of one type.
pub(super) fn apply<T: Element, R: Element, const N: usize>(
    context: &mut Context,
    target: Option<usize>,
    sources: [Source; N],
    f: &impl Fn([T; N]) -> R,
) -> Result<Outcome, Fault> {
    execute(context, target, sources, &|columns, result| run_vectors(Map { columns, f, result }))
}

/// An instruction of one operand: `d, a`.
pub(super) fn map1<A: Element, R: Element>(
    operands: &Operands,
    class: Class,
    f: impl Fn(A) -> R + Send + Sync + 'static,
) -> Decoded {
    mapped(operands, class, move |[a]: [A; 1]| f(a))
}

/// An instruction of `N` operands of one type, with a result of that type.
pub(super) fn map<T: Element, const N: usize>(
    operands: &Operands,
    class: Class,
    f: impl Fn([T; N]) -> T + Send + Sync + 'static,
) -> Decoded {
    mapped(operands, class, f)
}

macro_rules! mixed {
    ($name:ident, $loop:ident, $($room:ident $operand:ident: $ty:ident),*) => {
        struct $loop<'a, $($ty: Element,)* R, F> {
            $($operand: &'a Column<$ty>,)*
            f: &'a F,
            result: PhantomData<fn() -> R>,
        }

        impl<$($ty: Element,)* R: Element, F: Fn($($ty),*) -> R> Kernel for $loop<'_, $($ty,)* R, F> {
            type Output = Column<R>;

            #[inline(always)]
            fn run<V: Vectors>(self) -> Column<R> {
                let mut result = [R::Word::default(); LANES];
                for (lane, result) in result.iter_mut().enumerate() {
                    *result = (self.f)($($ty::load(self.$operand[lane])),*).store();
                }
                result
            }
        }

        /// An instruction of so many operands of different types.
        pub(super) fn $name<$($ty: Element,)* R: Element>(
            operands: &Operands,
            class: Class,
            f: impl Fn($($ty),*) -> R + Send + Sync + 'static,
        ) -> Decoded {
            let (target, sources) = operands_of(operands, [$($ty::TYPE),*])?;
            Ok(Some((
                class,
                Box::new(move |context| {
                    let Some(target) = target else { return Ok(Outcome::Next) };
                    $(let mut $room = MaybeUninit::uninit();)*
                    let [$($operand),*] = sources;
                    $(let $operand = context.view($operand, &mut $room);)*
                    let result = run_vectors($loop { $($operand,)* f: &f, result: PhantomData });
                    context.write_typed(target, &result);
                    Ok(Outcome::Next)
                }),
            )))
        }
    };
}

mixed!(map2, Map2, room_a a: A, room_b b: B);
mixed!(map3, Map3, room_a a: A, room_b b: B, room_c c: C);

/// Writes a result that may be unwanted.
#[inline]
pub(super) fn write(context: &mut Context, target: Option<usize>, values: Lanes) -> Result<Outcome, Fault> {
    if let Some(target) = target {
        context.write(target, &values);
    }
    Ok(Outcome::Next)
}

/// A predicate operand, or a constant in its place, as one bit per lane.
pub(super) fn predicate_bits(context: &Context, source: Source) -> u32 {
    match source {
        Source::Predicate { index, negated } => context.predicate(index, negated),
        other => mask_of(&context.read(other).map(|value| value != 0)),
    }
}

/// One bit per lane.
#[inline]
pub(super) fn mask_of(lanes: &[bool; LANES]) -> u32 {
    (0..LANES).fold(0, |bits, lane| bits | u32::from(lanes[lane]) << lane)
}

/// The type an instruction ends in, whether or not it is a fundamental one: `u16x2` of `add.u16x2`. Of `.relu` nvcc
/// writes the type in front: `max.s32.relu`.
pub(super) fn last<'a>(operands: &'a Operands) -> &'a str {
    operands.instruction.opcode.iter().rev().find(|part| *part != "relu").map_or("", String::as_str)
}

/// Whether a type name is that of an integer, packed or not.
pub(super) fn is_integer(name: &str) -> bool {
    matches!(name, "u16" | "u32" | "u64" | "s16" | "s32" | "s64" | "u16x2" | "s16x2" | "b16" | "b32" | "b64")
}

/// The body with a type alias for the type that the instruction ends in; an error for types not listed.
macro_rules! per_type {
    ($operands:expr, [$($name:literal: $ty:ty),* $(,)?], |$alias:ident| $body:expr) => {
        match $crate::isa::arithmetic::numeric::last($operands) {
            $($name => {
                type $alias = $ty;
                $body
            })*
            other => $operands.error(format!("does not exist for type `.{other}`")),
        }
    };
}
pub(super) use per_type;

/// An f16, widened.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct F16(pub f32);

/// A bf16, widened.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Bf16(pub f32);

impl Element for F16 {
    const TYPE: Type = Type::B16;
    type Word = u32;
    #[inline]
    fn of(bits: u64) -> Self {
        let (sign, rest) = ((bits as u32 & 0x8000) << 16, bits as u32 & 0x7FFF);
        // As an f32's exponent and fraction the number is 2^-112 times too small, subnormals included.
        let scaled = f32::from_bits(rest << 13) * f32::from_bits((127 + 112) << 23);
        let special = rest << 13 | 0x7F80_0000;
        Self(f32::from_bits(sign | if rest >= 0x7C00 { special } else { scaled.to_bits() }))
    }
    /// Rounds to nearest even.
    #[inline]
    fn bits(self) -> u64 {
        let (sign, rest) = (self.0.to_bits() >> 16 & 0x8000, self.0.to_bits() & 0x7FFF_FFFF);
        let tie = rest >> 13 & 1;
        let normal = (rest.wrapping_sub(112 << 23).wrapping_add(0xFFF + tie)) >> 13;
        // 0.5 has the last place of f16's subnormals: the addition rounds to it.
        let subnormal = (f32::from_bits(rest) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
        let finite = if rest < 0x3880_0000 { subnormal } else { normal };
        let limited = if rest >= 0x4780_0000 { 0x7C00 } else { finite };
        (if rest > 0x7F80_0000 { 0x7FFF } else { limited | sign }).into()
    }
}

impl Element for Bf16 {
    const TYPE: Type = Type::B16;
    type Word = u32;
    #[inline]
    fn of(bits: u64) -> Self {
        Self(f32::from_bits((bits as u32) << 16))
    }
    /// Rounds to nearest even.
    #[inline]
    fn bits(self) -> u64 {
        let bits = self.0.to_bits();
        let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
        (if bits & 0x7FFF_FFFF > 0x7F80_0000 { 0x7FFF } else { rounded }).into()
    }
}

/// A floating-point type.
pub(super) trait Float: Element + PartialOrd {
    const FORMAT: Format;
    /// The value, exactly.
    fn wide(self) -> f64;
    /// The value rounded to odd, so that writing it rounds once; of f32 and f64 the nearest.
    fn narrow(wide: f64) -> Self;
    /// Subnormal numbers become zeros of their sign.
    fn flush(self) -> Self;
    /// With the sign bit cleared, flipped, or taken from the product of two numbers' signs.
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn with_sign(self, negative: bool) -> Self;
    fn is_nan(self) -> bool;
    fn is_negative(self) -> bool;
    /// A result as it is written: NaN becomes what the type's instructions return for it.
    fn settle<const N: usize>(self, operands: [Self; N]) -> Self;

    /// `.sat`: into 0..=1; NaN and -0 become +0 (PTX ISA 9.7.3.3).
    #[inline]
    fn saturate(self) -> Self {
        let (zero, one) = (Self::narrow(0.0), Self::narrow(1.0));
        let above = if self > zero { self } else { zero };
        if above > one { one } else { above }
    }

    /// `.relu`: numbers below zero, and -0, become +0; NaN stays (PTX ISA 9.7.4.4).
    #[inline]
    fn relu(self) -> Self {
        if self.is_nan() | (self > Self::narrow(0.0)) { self } else { Self::narrow(0.0) }
    }
}

macro_rules! float_basics {
    ($inner:ty, $wrap:expr, $($get:tt)?) => {
        #[inline]
        fn wide(self) -> f64 {
            f64::from(self$(.$get)?)
        }
        #[inline]
        fn abs(self) -> Self {
            $wrap((self$(.$get)?).abs())
        }
        #[inline]
        fn neg(self) -> Self {
            $wrap(-(self$(.$get)?))
        }
        #[inline]
        fn with_sign(self, negative: bool) -> Self {
            $wrap((self$(.$get)?).copysign(if negative { -1.0 } else { 1.0 }))
        }
        #[inline]
        fn is_nan(self) -> bool {
            <$inner>::is_nan(self$(.$get)?)
        }
        #[inline]
        fn is_negative(self) -> bool {
            (self$(.$get)?).is_sign_negative()
        }
    };
}

/// The NaN that f32 instructions return. The ISA leaves open which (9.7.3); NVIDIA's devices return this one.
pub(crate) const NAN32: f32 = f32::from_bits(0x7FFF_FFFF);

macro_rules! half_float {
    ($half:ident, $format:ident, $least:expr) => {
        impl Float for $half {
            const FORMAT: Format = Format::$format;
            float_basics!(f32, $half, 0);
            #[inline]
            fn narrow(wide: f64) -> Self {
                Self(f32_to_odd(wide))
            }
            #[inline]
            fn flush(self) -> Self {
                Self(if self.0.abs() < $least { 0f32.copysign(self.0) } else { self.0 })
            }
            #[inline]
            fn settle<const N: usize>(self, _: [Self; N]) -> Self {
                self // Writing it makes NaN canonical.
            }
        }
    };
}

half_float!(F16, F16, f32::from_bits((127 - 14) << 23));
half_float!(Bf16, BF16, f32::MIN_POSITIVE);

impl Float for f32 {
    const FORMAT: Format = Format::F32;
    float_basics!(f32, std::convert::identity,);
    #[inline]
    fn narrow(wide: f64) -> Self {
        wide as Self
    }
    #[inline]
    fn flush(self) -> Self {
        if Self::abs(self) < Self::MIN_POSITIVE { 0.0f32.copysign(self) } else { self }
    }
    /// Decided on the bits: of a choice between a NaN and a square root that is one, LLVM keeps the root's
    /// (`findings/llvm-sqrt-keeps-its-nan.sh`).
    #[inline]
    fn settle<const N: usize>(self, _: [Self; N]) -> Self {
        let bits = self.to_bits();
        Self::from_bits(if bits & 0x7FFF_FFFF > Self::INFINITY.to_bits() { NAN32.to_bits() } else { bits })
    }
}

impl Float for f64 {
    const FORMAT: Format = Format::F64;
    float_basics!(f64, std::convert::identity,);
    #[inline]
    fn narrow(wide: f64) -> Self {
        wide
    }
    #[inline]
    fn flush(self) -> Self {
        self // `.ftz` does not exist for f64.
    }
    /// Doubles hand on the first NaN operand, quiet; an invalid operation makes a negative one, as the hardware's does.
    #[inline]
    fn settle<const N: usize>(self, operands: [Self; N]) -> Self {
        let bits = self.to_bits();
        let first = operands.into_iter().find(|operand| operand.is_nan());
        let nan = first.map_or(0xFFF8 << 48, |nan| nan.to_bits() | 1 << 51);
        // On the bits, as for f32.
        Self::from_bits(if bits << 1 > Self::INFINITY.to_bits() << 1 { nan } else { bits })
    }
}
