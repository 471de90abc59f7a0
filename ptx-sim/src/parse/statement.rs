//! Bodies of functions: statements and operands (PTX ISA sections 6 and 9).

use super::error::Result;
use super::lexer::Kind;
use super::parser::{MAX_NESTING, Parser};
use super::variable::space;
use crate::ast::{Instruction, Location, Operand, Space, Statement};

impl Parser<'_> {
    /// Statements up to the `}` of the function, whose `{` is already taken.
    pub(super) fn body(&mut self) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        let mut scopes = 0;
        loop {
            match self.token.kind {
                Kind::Symbol if self.token.is("{") => {
                    scopes += 1;
                    // Scopes do not recurse here, but nobody downstream should have to fear their depth either.
                    if scopes > MAX_NESTING {
                        return Err(self.unexpected(&format!("at most {MAX_NESTING} levels of scopes")));
                    }
                    self.advance()?;
                    statements.push(Statement::Open);
                }
                Kind::Symbol if self.token.is("}") => {
                    self.advance()?;
                    if scopes == 0 {
                        return Ok(statements);
                    }
                    scopes -= 1;
                    statements.push(Statement::Close);
                }
                Kind::Symbol if self.token.is("@") => statements.push(self.guarded()?),
                Kind::Word => statements.push(self.labelled()?),
                Kind::Dotted => self.directive(&mut statements)?,
                Kind::Symbol | Kind::Number | Kind::Text | Kind::End => {
                    return Err(self.unexpected("a statement or `}`"));
                }
            }
        }
    }

    /// `.reg`, `.loc`, `.pragma` or a variable.
    fn directive(&mut self, statements: &mut Vec<Statement>) -> Result<()> {
        let line = self.token.line;
        let external = self.token.is_dotted("extern");
        let expected = if external { "`.shared` or `.global`" } else { "a statement or `}`" };
        if external {
            self.advance()?;
        }
        match self.token.text {
            "reg" if !external => statements.push(self.registers()?),
            "loc" if !external => statements.push(self.location()?),
            "pragma" if !external => self.skip_pragma()?,
            name => match space(name).filter(|_| self.token.kind == Kind::Dotted) {
                Some(space) if space != Space::Reg => {
                    self.advance()?;
                    let variables = self.variables(space, external, line)?;
                    statements.extend(variables.into_iter().map(Statement::Variable));
                }
                _ => return Err(self.unexpected(expected)),
            },
        }
        Ok(())
    }

    /// `.reg .b32 %r<41>, x;`
    fn registers(&mut self) -> Result<Statement> {
        self.advance()?;
        let head = self.head(Space::Reg)?;
        let mut names = Vec::new();
        loop {
            let name = self.name("a register")?.text.to_owned();
            let count = if self.accept("<")? {
                let count = self.number("the number of registers")?;
                self.expect(">", "`>`")?;
                Some(count)
            } else {
                None
            };
            names.push((name, count));
            if !self.accept(",")? {
                self.expect(";", "`<`, `,` or `;`")?;
                return Ok(Statement::Registers { ty: head.ty, vector: head.vector, names });
            }
        }
    }

    /// `.loc 1 24 9, function_name $L__info_string0, inlined_at 1 12 5`
    fn location(&mut self) -> Result<Statement> {
        self.advance()?;
        let (file, line, column) = self.place()?;
        let mut inlined_at = None;
        while self.accept(",")? {
            match self.token.text {
                "function_name" => {
                    self.advance()?;
                    self.name("a label in `.debug_str`")?;
                    self.offset()?;
                }
                "inlined_at" => {
                    self.advance()?;
                    inlined_at = Some(self.place()?);
                }
                _ => return Err(self.unexpected("`function_name` or `inlined_at`")),
            }
        }
        Ok(Statement::Location(Location { file, line, column, inlined_at }))
    }

    fn place(&mut self) -> Result<(u32, u32, u32)> {
        Ok((self.number("a file's number")?, self.number("a line")?, self.number("a column")?))
    }

    /// A label, with the table or prototype it may name, or an unguarded instruction.
    fn labelled(&mut self) -> Result<Statement> {
        if !self.peek()?.is(":") {
            return self.instruction(None, self.token.line);
        }
        let name = self.name("a label")?.text.to_owned();
        self.advance()?;
        if self.token.is_dotted("branchtargets") {
            self.advance()?;
            let mut targets = Vec::new();
            loop {
                targets.push(self.name("a label")?.text.to_owned());
                if !self.accept(",")? {
                    self.expect(";", "`,` or `;`")?;
                    return Ok(Statement::BranchTargets { name, targets });
                }
            }
        }
        if self.token.is_dotted("callprototype") || self.token.is_dotted("calltargets") {
            // What it lists is known when the call happens.
            while !self.accept(";")? {
                if self.token.kind == Kind::End || self.token.is("{") || self.token.is("}") {
                    return Err(self.unexpected("`;`"));
                }
                self.advance()?;
            }
            return Ok(Statement::CallPrototype(name));
        }
        Ok(Statement::Label(name))
    }

    /// `@!%p1 bra ...`
    fn guarded(&mut self) -> Result<Statement> {
        let line = self.advance()?.line;
        let negated = self.accept("!")?;
        let guard = self.name("a predicate")?.text.to_owned();
        self.instruction(Some((guard, negated)), line)
    }

    fn instruction(&mut self, guard: Option<(String, bool)>, line: u32) -> Result<Statement> {
        if !(self.token.kind == Kind::Word && self.token.text.starts_with(|first: char| first.is_ascii_lowercase())) {
            return Err(self.unexpected(if guard.is_some() { "an opcode" } else { "an opcode or a label" }));
        }
        let first = self.advance()?;
        let mut opcode = vec![first.text.to_owned()];
        // Blanks are allowed before a part, but on a new line it would be a directive behind a forgotten semicolon.
        while self.token.kind == Kind::Dotted && self.token.line == first.line {
            opcode.push(self.advance()?.text.to_owned());
        }
        let operands = if first.text == "call" { self.call()? } else { self.operands()? };
        Ok(Statement::Instruction(Instruction { guard, opcode, operands, line }))
    }

    /// Operands up to the semicolon.
    fn operands(&mut self) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        if self.accept(";")? {
            return Ok(operands);
        }
        if !self.at_operand() {
            return Err(self.unexpected("an operand or `;`"));
        }
        loop {
            operands.push(self.operand()?);
            if !self.accept(",")? {
                self.expect(";", "`,` or `;`")?;
                return Ok(operands);
            }
        }
    }

    /// `(result), function, (arguments), prototype;`, of which only the function is always there.
    fn call(&mut self) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        if self.token.is("(") {
            operands.push(self.list()?);
            self.expect(",", "`,`")?;
        }
        operands.push(Operand::Name(self.name("a function")?.text.to_owned()));
        let mut arguments = false;
        while self.accept(",")? {
            if self.token.is("(") && !arguments {
                operands.push(self.list()?);
                arguments = true;
            } else {
                let expected = if arguments { "a prototype" } else { "arguments or a prototype" };
                operands.push(Operand::Name(self.name(expected)?.text.to_owned()));
                self.expect(";", "`;`")?;
                return Ok(operands);
            }
        }
        self.expect(";", "`,` or `;`")?;
        Ok(operands)
    }

    /// `(a, b)`
    fn list(&mut self) -> Result<Operand> {
        self.expect("(", "`(`")?;
        let mut items = Vec::new();
        if self.accept(")")? {
            return Ok(Operand::List(items));
        }
        loop {
            items.push(self.operand()?);
            if !self.accept(",")? {
                self.expect(")", "`,` or `)`")?;
                return Ok(Operand::List(items));
            }
        }
    }

    fn at_operand(&self) -> bool {
        self.token.kind == Kind::Word || self.token.is("[") || self.token.is("{") || self.at_constant()
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.token.is("[") {
            return self.address();
        }
        if self.token.is("{") {
            return self.vector();
        }
        if self.token.is("!") || self.token.is("-") {
            let behind = self.peek()?;
            if behind.kind == Kind::Word && behind.text != "WARP_SZ" {
                let sign = self.advance()?;
                let name = Box::new(Operand::Name(self.component()?));
                return Ok(if sign.is("!") { Operand::Not(name) } else { Operand::Negative(name) });
            }
        }
        if self.at_constant() {
            let value = self.constant()?;
            return Ok(value.into());
        }
        if self.token.kind != Kind::Word {
            return Err(self.unexpected("an operand"));
        }
        let first = self.destination()?;
        if self.accept("|")? {
            return Ok(Operand::Pair(Box::new(first), Box::new(self.destination()?)));
        }
        match first {
            // Registers cannot be added to outside of an address.
            Operand::Name(name) if !name.starts_with('%') && (self.token.is("+") || self.token.is("-")) => {
                Ok(Operand::Sum { name, offset: self.offset()? })
            }
            first => Ok(first),
        }
    }

    /// A name or `_`.
    fn destination(&mut self) -> Result<Operand> {
        if self.token.kind == Kind::Word && self.token.text == "_" {
            self.advance()?;
            return Ok(Operand::Sink);
        }
        Ok(Operand::Name(self.component()?))
    }

    /// A name with the component it may select: `%tid.x`, or `%r1.b0` of a video instruction.
    fn component(&mut self) -> Result<String> {
        let mut name = self.name("a name")?.text.to_owned();
        if self.token.kind == Kind::Dotted {
            match self.token.text {
                "x" | "y" | "z" | "w" | "r" | "g" | "b" | "a" | "b0" | "b1" | "b2" | "b3" | "h0" | "h1" => {
                    name.push('.');
                    name.push_str(self.advance()?.text);
                }
                _ => return Err(self.unexpected("`,`, `;` or a component such as `.x`")),
            }
        }
        Ok(name)
    }

    /// `{a, _, 1}`
    fn vector(&mut self) -> Result<Operand> {
        self.enter()?;
        self.advance()?;
        let mut elements = Vec::new();
        loop {
            elements.push(self.operand()?);
            if !self.accept(",")? {
                self.expect("}", "`,` or `}`")?;
                self.leave();
                return Ok(Operand::Vector(elements));
            }
        }
    }

    /// `[a+4]` or `[a, {b, c}]`
    fn address(&mut self) -> Result<Operand> {
        self.enter()?;
        self.advance()?;
        let base = if self.at_constant() {
            Operand::Integer(self.integer()?)
        } else {
            Operand::Name(self.name("a register, variable or number")?.text.to_owned())
        };
        let offset = self.offset()?;
        let address = if self.token.is(",") {
            let first = match base {
                Operand::Name(name) if offset != 0 => Operand::Sum { name, offset },
                base => base,
            };
            let mut parts = vec![first];
            while self.accept(",")? {
                parts.push(self.operand()?);
            }
            Operand::TensorAddress(parts)
        } else {
            Operand::Address { base: Box::new(base), offset }
        };
        self.expect("]", "`+`, `,` or `]`")?;
        self.leave();
        Ok(address)
    }
}
