//! The parser's place in the source, and the steps that all rules of the grammar are made of.

use super::error::{ParseError, Result};
use super::lexer::{Kind, Lexer, Token};
use super::literal::literal;

/// Braces, parentheses and signs within each other that are still accepted. nvcc's output stays below 5.
pub(super) const MAX_NESTING: usize = 64;

/// Values and statements that a source may stand for without containing them (inner zeros of nested initial values,
/// bodies behind aliases): a few bytes must not become gigabytes.
const MAX_IMPLIED: usize = 1 << 16;

/// Where the parser is in the source; the grammar's rules are methods in the files beside this one.
pub(super) struct Parser<'s> {
    /// Behind `token`.
    lexer: Lexer<'s>,
    /// The next token.
    pub(super) token: Token<'s>,
    /// Levels of nesting entered.
    depth: usize,
    /// What is left of [`MAX_IMPLIED`].
    implied: usize,
}

impl<'s> Parser<'s> {
    pub(super) fn new(source: &'s str) -> Result<Self> {
        let mut lexer = Lexer::new(source);
        let token = lexer.next()?;
        Ok(Self { lexer, token, depth: 0, implied: MAX_IMPLIED })
    }

    /// Takes the next token.
    pub(super) fn advance(&mut self) -> Result<Token<'s>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    /// The token behind the next one.
    pub(super) fn peek(&self) -> Result<Token<'s>> {
        let mut ahead = self.lexer;
        ahead.next()
    }

    /// The error that the next token is not what it should be.
    pub(super) fn unexpected(&self, expected: &str) -> ParseError {
        self.error_at(self.token, format!("expected {expected}, found {}", self.token.describe()))
    }

    pub(super) fn error_at(&self, token: Token<'_>, message: String) -> ParseError {
        ParseError::new(self.lexer.source(), token.start, token.line, message)
    }

    /// Takes the next token if it is this punctuation.
    pub(super) fn accept(&mut self, symbol: &str) -> Result<bool> {
        let found = self.token.is(symbol);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Takes this punctuation; `expected` lists all that could stand here.
    pub(super) fn expect(&mut self, symbol: &str, expected: &str) -> Result<()> {
        if self.accept(symbol)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// Takes a token of a kind.
    pub(super) fn expect_kind(&mut self, kind: Kind, expected: &str) -> Result<Token<'s>> {
        if self.token.kind == kind { self.advance() } else { Err(self.unexpected(expected)) }
    }

    /// Takes a name; `_` is none.
    pub(super) fn name(&mut self, expected: &str) -> Result<Token<'s>> {
        if self.token.text == "_" { Err(self.unexpected(expected)) } else { self.expect_kind(Kind::Word, expected) }
    }

    /// Takes a plain number of 32 bits, as directives have them.
    pub(super) fn number(&mut self, expected: &str) -> Result<u32> {
        let value = (self.token.kind == Kind::Number).then(|| literal(self.token.text)).flatten();
        match value.and_then(|value| u32::try_from(value.integer()?).ok()) {
            Some(value) => {
                self.advance()?;
                Ok(value)
            }
            None => Err(self.unexpected(expected)),
        }
    }

    /// Enters a level of nesting at the next token; whoever does so leaves it by [`Self::leave`].
    pub(super) fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            return Err(self.error_at(self.token, format!("expected at most {MAX_NESTING} levels of nesting")));
        }
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Accounts for things that the source implies without containing them.
    pub(super) fn imply(&mut self, things: usize, at: Token<'_>) -> Result<()> {
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
    pub(super) fn skip_block(&mut self, open: &str, close: &str) -> Result<()> {
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
    pub(super) fn skip_pragma(&mut self) -> Result<()> {
        self.advance()?;
        loop {
            self.expect_kind(Kind::Text, "a string")?;
            if !self.accept(",")? {
                return self.expect(";", "`,` or `;`");
            }
        }
    }
}
