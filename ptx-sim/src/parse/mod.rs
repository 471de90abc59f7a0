//! Reads PTX: [`parse`] makes an [`ast::Module`](crate::ast::Module) of a file.
//!
//! What nvcc emits is read completely, inline assembly included. The meaning of instructions is nobody's business
//! here: whether an opcode exists, or takes such operands, is for the executor to know. All sources are read in
//! time linear in their length, whatever they contain.

mod constant;
mod lexer;
mod module;
mod statement;
mod variable;

use crate::ast::Module;
use lexer::{Kind, Lexer, Token};

/// Braces, parentheses and signs within each other that are still accepted. nvcc's output stays below 5.
const MAX_NESTING: usize = 64;

/// Values and statements that a source may stand for without containing them (inner zeros of nested initial values,
/// bodies behind aliases): a few bytes must not become gigabytes.
const MAX_IMPLIED: usize = 1 << 16;

/// Why a source is not PTX, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// What was expected, and what was found instead.
    pub message: String,
}

impl ParseError {
    /// An error at a byte of the source, which is on `line`.
    fn new(source: &str, start: usize, line: u32, message: String) -> Self {
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = u32::try_from(before[line_start..].chars().count()).unwrap_or(u32::MAX).saturating_add(1);
        Self { line, column, message }
    }
}

type Result<T> = std::result::Result<T, ParseError>;

/// Reads a PTX file.
///
/// ```
/// let source = ".version 9.0\n.target sm_80\n.address_size 64\n.entry empty() { ret; }";
/// assert_eq!(ptx_sim::parse::parse(source).unwrap().functions[0].name, "empty");
///
/// let error = ptx_sim::parse::parse(".version 9.0\n.entry empty() { ret }").unwrap_err();
/// assert_eq!(error.to_string(), "line 2, column 22: expected an operand or `;`, found `}`");
/// ```
///
/// # Errors
///
/// The first place at which the source is not PTX as described in the module.
pub fn parse(source: &str) -> Result<Module> {
    Parser::new(source)?.module()
}

/// Where the parser is in the source; the grammar's rules are methods in the submodules.
struct Parser<'s> {
    /// Behind `token`.
    lexer: Lexer<'s>,
    /// The next token.
    token: Token<'s>,
    /// Levels of nesting entered.
    depth: usize,
    /// What is left of [`MAX_IMPLIED`].
    implied: usize,
}

impl<'s> Parser<'s> {
    fn new(source: &'s str) -> Result<Self> {
        let mut lexer = Lexer::new(source);
        let token = lexer.next()?;
        Ok(Self { lexer, token, depth: 0, implied: MAX_IMPLIED })
    }

    /// Takes the next token.
    fn advance(&mut self) -> Result<Token<'s>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// The token behind the next one.
    fn peek(&self) -> Result<Token<'s>> {
        let mut ahead = self.lexer;
        ahead.next()
    }

    /// The error that the next token is not what it should be.
    fn unexpected(&self, expected: &str) -> ParseError {
        self.error_at(self.token, format!("expected {expected}, found {}", self.token.describe()))
    }

    fn error_at(&self, token: Token<'_>, message: String) -> ParseError {
        ParseError::new(self.lexer.source(), token.start, token.line, message)
    }

    /// Takes the next token if it is this punctuation.
    fn accept(&mut self, symbol: &str) -> Result<bool> {
        let found = self.token.is(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Takes this punctuation; `expected` lists all that could stand here.
    fn expect(&mut self, symbol: &str, expected: &str) -> Result<()> {
        if self.accept(symbol)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// Takes a token of a kind.
    fn expect_kind(&mut self, kind: Kind, expected: &str) -> Result<Token<'s>> {
        if self.token.kind == kind { self.advance() } else { Err(self.unexpected(expected)) }
    }

    /// Takes a name; `_` is none.
    fn name(&mut self, expected: &str) -> Result<Token<'s>> {
        if self.token.text == "_" { Err(self.unexpected(expected)) } else { self.expect_kind(Kind::Word, expected) }
    }

    /// Takes a plain number of 32 bits, as directives have them.
    fn number(&mut self, expected: &str) -> Result<u32> {
        let value = (self.token.kind == Kind::Number).then(|| constant::literal(self.token.text)).flatten();
        match value.and_then(|value| u32::try_from(value.integer()?).ok()) {
            Some(value) => {
                self.advance()?;
                Ok(value)
            }
            None => Err(self.unexpected(expected)),
        }
    }

    /// Enters a level of nesting at the next token; whoever does so leaves it by [`Self::leave`].
    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(self.error_at(self.token, format!("expected at most {MAX_NESTING} levels of nesting")));
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Accounts for things that the source implies without containing them.
    fn imply(&mut self, things: usize, at: Token<'_>) -> Result<()> {
        match self.implied.checked_sub(things) {
            Some(left) => {
                self.implied = left;
                Ok(())
            }
            None => Err(self.error_at(
                at,
                format!("expected at most {MAX_IMPLIED} values and statements implied by nested values and aliases"),
            )),
        }
    }

    /// Skips to behind the `close` that belongs to an `open` already taken.
    fn skip_block(&mut self, open: &str, close: &str) -> Result<()> {
        let mut levels = 1usize;
        while levels > 0 {
            if self.token.kind == Kind::End {
                return Err(self.unexpected(&format!("`{close}`")));
            }
            let token = self.advance()?;
            levels = if token.is(open) { levels + 1 } else { levels - usize::from(token.is(close)) };
        }
        Ok(())
    }

    /// Skips `.pragma "a", "b";`, whose hints do not concern the result.
    fn skip_pragma(&mut self) -> Result<()> {
        self.advance()?;
        loop {
            self.expect_kind(Kind::Text, "a string")?;
            if !self.accept(",")? {
                return self.expect(";", "`,` or `;`");
            }
        }
    }
}
