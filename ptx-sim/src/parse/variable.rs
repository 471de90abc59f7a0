//! Declarations of variables and parameters with their initial values (PTX ISA section 5.4).

use half::{bf16, f16};

use super::error::Result;
use super::lexer::{Kind, Token};
use super::literal::Constant;
use super::parser::Parser;
use crate::ast::{Initializer, Space, Type, Variable};

/// What stands in front of a declared name: `.align 16 .v2 .f32`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) ty: Type,
    pub(super) vector: usize,
    align: Option<usize>,
}

/// The state space of a directive.
pub(super) fn space(name: &str) -> Option<Space> {
    Some(match name {
        "reg" => Space::Reg,
        "const" => Space::Const,
        "global" => Space::Global,
        "local" => Space::Local,
        "param" => Space::Param,
        "shared" => Space::Shared,
        _ => return None,
    })
}

impl Parser<'_> {
    /// `(.param .u64 a, ...)`, the opening parenthesis already taken.
    pub(super) fn parameters(&mut self) -> Result<Vec<Variable>> {
        let mut parameters = Vec::new();
        if self.accept(")")? {
            return Ok(parameters);
        }
        loop {
            let line = self.token.line;
            let space = match (self.token.kind, space(self.token.text)) {
                (Kind::Dotted, Some(space @ (Space::Param | Space::Reg))) => space,
                _ => return Err(self.unexpected("`.param` or `.reg`")),
            };
            self.advance()?;
            let head = self.head(space)?;
            parameters.push(self.declarator(head, space, line)?);
            if !self.accept(",")? {
                self.expect(")", "`,` or `)`")?;
                return Ok(parameters);
            }
        }
    }

    /// `.align 4 .b8 a[2] = {1, 2}, b;` behind its state space.
    pub(super) fn variables(&mut self, space: Space, external: bool, line: u32) -> Result<Vec<Variable>> {
        let head = self.head(space)?;
        let mut variables = Vec::new();
        loop {
            let mut variable = self.declarator(head, space, line)?;
            variable.external = external;
            variables.push(variable);
            if !self.accept(",")? {
                self.expect(";", "`=`, `[`, `,` or `;`")?;
                return Ok(variables);
            }
        }
    }

    /// Alignment, vector size and type in any order.
    pub(super) fn head(&mut self, space: Space) -> Result<Head> {
        const EXPECTED: &str = "a type, `.align`, `.v2` or `.v4`";
        let (mut ty, mut vector, mut align) = (None, 1, None);
        while self.token.kind == Kind::Dotted {
            match self.token.text {
                "align" => align = Some(self.alignment()?),
                "v2" | "v4" => vector = if self.advance()?.text == "v2" { 2 } else { 4 },
                "attribute" => self.skip_attribute()?,
                // `.ptr .global .align 16` tells what a pointer points to, which is known when it is followed.
                "ptr" if ty.is_some() => {
                    self.advance()?;
                    if self.token.kind == Kind::Dotted && self::space(self.token.text).is_some() {
                        self.advance()?;
                    }
                    if self.token.is_dotted("align") {
                        self.alignment()?;
                    }
                }
                name => {
                    let found = Type::from_name(name).filter(|found| *found != Type::Pred || space == Space::Reg);
                    match found.filter(|_| ty.is_none()) {
                        Some(found) => ty = Some(found),
                        None => return Err(self.unexpected(if ty.is_none() { EXPECTED } else { "a name" })),
                    }
                    self.advance()?;
                }
            }
        }
        match ty {
            Some(ty) => Ok(Head { ty, vector, align }),
            None => Err(self.unexpected(EXPECTED)),
        }
    }

    /// `.attribute(.managed)`: where the driver keeps a variable makes no difference to its value.
    pub(super) fn skip_attribute(&mut self) -> Result<()> {
        self.advance()?;
        self.expect("(", "`(`")?;
        self.skip_block("(", ")")
    }

    fn alignment(&mut self) -> Result<usize> {
        const EXPECTED: &str = "an alignment, which is a power of two";
        self.advance()?;
        let number = self.token;
        let align = self.number(EXPECTED)?;
        if !align.is_power_of_two() {
            return Err(self.error_at(number, format!("expected {EXPECTED}, found {}", number.describe())));
        }
        Ok(align as usize)
    }

    /// `name[2][3] = {...}` behind its head.
    fn declarator(&mut self, head: Head, space: Space, line: u32) -> Result<Variable> {
        let Head { ty, vector, align } = head;
        // A prototype's parameters may be called `_`.
        let name = self.expect_kind(Kind::Word, "a name")?;
        let mut dimensions = Vec::new();
        while self.accept("[")? {
            let first = self.token;
            // An unsized dimension is as large as it has to be, and can only be the first.
            if dimensions.is_empty() && self.accept("]")? {
                dimensions.push(usize::MAX);
                continue;
            }
            let size = usize::try_from(self.integer()?).ok().filter(|size| *size < usize::MAX);
            dimensions.push(size.ok_or_else(|| self.error_at(first, "expected a smaller array".to_owned()))?);
            self.expect("]", "`]`")?;
        }
        let unsized_first = dimensions.first() == Some(&usize::MAX);
        let sized = &dimensions[usize::from(unsized_first)..];
        // Bytes must be countable, so that nobody's sums of addresses overflow; nor may a 0 hide that products do.
        let bytes = sized.iter().try_fold(vector * ty.size().max(1), |bytes, size| bytes.checked_mul((*size).max(1)));
        if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
            return Err(self.error_at(name, "expected a smaller array".to_owned()));
        }
        let row: usize = sized.iter().product();
        let mut count = (!unsized_first).then_some(row);
        let mut init = Vec::new();
        if self.token.is("=") {
            if !matches!(space, Space::Const | Space::Global) {
                return Err(self.unexpected("no initial value outside of `.const` and `.global`"));
            }
            self.advance()?;
            if vector > 1 {
                dimensions.push(vector);
            }
            if dimensions.is_empty() && !self.token.is("{") {
                init.push(self.element(ty)?);
            } else if self.token.is("{") {
                let dimensions = if dimensions.is_empty() { &[1] } else { dimensions.as_slice() };
                self.values(ty, dimensions, 0, &mut init)?;
            } else {
                return Err(self.unexpected("`{`"));
            }
            if unsized_first {
                count = Some(init.len().div_ceil((row * vector).max(1)) * row);
            }
        }
        Ok(Variable {
            name: name.text.to_owned(),
            space,
            ty,
            vector,
            count,
            align: align.unwrap_or_else(|| (ty.size() * vector).max(1)),
            init,
            external: false,
            line,
        })
    }

    /// `{1, {2, 3}}` for the elements from `position` on, C's rules: an inner brace fills a row.
    fn values(&mut self, ty: Type, dimensions: &[usize], position: usize, init: &mut Vec<Initializer>) -> Result<()> {
        self.enter()?;
        self.expect("{", "`{`")?;
        let row: usize = dimensions[1..].iter().product();
        let size = dimensions[0].saturating_mul(row);
        let mut filled = 0;
        loop {
            let first = self.token;
            let brace = first.is("{");
            if brace && (dimensions.len() == 1 || filled % row.max(1) != 0) {
                return Err(self.unexpected("a value"));
            }
            if filled >= size {
                return Err(self.unexpected("no more values than elements"));
            }
            let next = position + filled;
            if brace {
                self.values(ty, &dimensions[1..], next, init)?;
                filled += row;
            } else {
                self.imply(next - init.len(), first)?;
                init.resize(next, Initializer::Bits(0));
                init.push(self.element(ty)?);
                filled += 1;
            }
            if !self.accept(",")? {
                self.leave();
                return self.expect("}", "`,` or `}`");
            }
        }
    }

    /// A number, or the address of a variable or function.
    fn element(&mut self, ty: Type) -> Result<Initializer> {
        let first = self.token;
        if first.kind == Kind::Word && !self.at_constant() {
            if ty.size() != 4 && ty.size() != 8 {
                return Err(self.unexpected("a number, as addresses take 4 or 8 bytes"));
            }
            self.name("a value")?;
            let generic = first.text == "generic" && self.accept("(")?;
            let name = if generic { self.name("a variable")? } else { first };
            if generic {
                self.expect(")", "`)`")?;
            }
            return Ok(Initializer::Address { name: name.text.to_owned(), offset: self.offset()?, generic });
        }
        if !self.at_constant() {
            return Err(self.unexpected("a value"));
        }
        let value = self.constant()?;
        if self.token.is("(") {
            return Err(self.unexpected("`,` or `}`, as bytes of addresses such as `0xFF(name)` are not supported"));
        }
        self.bits(value, ty, first).map(Initializer::Bits)
    }

    /// A constant as an element of a type, as ptxas converts it.
    fn bits(&self, value: Constant, ty: Type, first: Token<'_>) -> Result<u64> {
        let value = match value {
            Constant::Integer { bits, .. } => {
                return match ty {
                    Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 | Type::Tf32 | Type::F32 | Type::F64 => {
                        Err(self.error_at(first, "expected a float, found an integer".to_owned()))
                    }
                    Type::B128 | Type::Pred => {
                        Err(self.error_at(first, "expected no initial value for this type".to_owned()))
                    }
                    _ => Ok(bits & (u64::MAX >> (64 - 8 * ty.size()))),
                };
            }
            // Bits that fit are kept as they are, NaNs included.
            Constant::F32(bits) if matches!(ty, Type::F32 | Type::Tf32 | Type::B32) => return Ok(bits.into()),
            Constant::F64(bits) if matches!(ty, Type::F64 | Type::B64) => return Ok(bits),
            Constant::F32(bits) => f64::from(f32::from_bits(bits)),
            Constant::F64(bits) => f64::from_bits(bits),
        };
        Ok(match ty {
            Type::F64 | Type::B64 => value.to_bits(),
            Type::F32 | Type::Tf32 | Type::B32 => (value as f32).to_bits().into(),
            Type::F16 => f16::from_f64(value).to_bits().into(),
            Type::Bf16 => bf16::from_f64(value).to_bits().into(),
            _ => return Err(self.error_at(first, "expected an integer, found a float".to_owned())),
        })
    }
}
