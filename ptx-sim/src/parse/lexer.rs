//! Tokens of PTX (PTX ISA section 4), borrowed from the source.

use super::error::{ParseError, Result};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, opcode or register: `add`, `%r1`, `$L__BB0_1`, `_`.
    Word,
    /// A directive or the part of an opcode: `.shared::cluster`; the token's text lacks the dot.
    Dotted,
    /// A numeric literal, not yet checked beyond its extent.
    Number,
    /// A string; the token's text lacks the quotes.
    Text,
    /// Punctuation; `<<` and `>>` are one token.
    Symbol,
    /// The end of the source.
    End,
}

/// A token and where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'s> {
    pub(super) kind: Kind,
    pub(super) text: &'s str,
    /// Byte at which it begins, for the column of an error.
    pub(super) start: usize,
    /// Line on which it begins, counted from 1.
    pub(super) line: u32,
}

impl Token<'_> {
    /// Whether it is this punctuation.
    pub(super) fn is(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// Whether it is this directive (without the dot).
    pub(super) fn is_dotted(&self, name: &str) -> bool {
        self.kind == Kind::Dotted && self.text == name
    }

    /// How an error calls it; long ones are cut, as a name may be as long as the file.
    pub(super) fn describe(&self) -> String {
        let cut: String = self.text.chars().take(40).collect();
        let dots = if cut.len() < self.text.len() { "..." } else { "" };
        match self.kind {
            Kind::End => "end of file".to_owned(),
            Kind::Dotted => format!("`.{cut}{dots}`"),
            Kind::Text => format!("`\"{cut}{dots}\"`"),
            Kind::Word | Kind::Number | Kind::Symbol => format!("`{cut}{dots}`"),
        }
    }
}

/// Where the next token is looked for. Copies are cheap, which is how the parser looks ahead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer<'s> {
    source: &'s str,
    position: usize,
    line: u32,
}

impl<'s> Lexer<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        // nvrtc counts the terminating zero as part of the PTX it returns.
        Self { source: source.trim_end_matches('\0'), position: 0, line: 1 }
    }

    /// The next token; [`Kind::End`] for ever once the source is used up.
    pub(super) fn next(&mut self) -> Result<Token<'s>> {
        self.skip_blanks()?;
        let (start, line) = (self.position, self.line);
        let Some(first) = self.peek(0) else {
            return Ok(Token { kind: Kind::End, text: "", start, line });
        };
        let mut begin = start;
        let kind = match first {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                self.skip_while(is_name);
                Kind::Word
            }
            b'$' | b'%' if self.peek(1).is_some_and(is_name) => {
                self.position += 1;
                self.skip_while(is_name);
                Kind::Word
            }
            b'0'..=b'9' => {
                self.skip_number();
                Kind::Number
            }
            b'.' if self.peek(1).is_some_and(is_part) => {
                self.position += 1;
                begin = self.position;
                self.skip_while(is_part);
                while self.rest().starts_with("::") && self.peek(2).is_some_and(is_part) {
                    self.position += 2;
                    self.skip_while(is_part);
                }
                Kind::Dotted
            }
            b'"' => return self.text(start),
            b'{' | b'}' | b'[' | b']' | b'(' | b')' | b',' | b';' | b':' | b'<' | b'>' | b'=' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'@' | b'!' | b'|' | b'&' | b'^' | b'~' => {
                let double = matches!(first, b'<' | b'>') && self.peek(1) == Some(first);
                self.position += 1 + usize::from(double);
                Kind::Symbol
            }
            _ => {
                let found = self.rest().chars().next().unwrap_or_default();
                return Err(ParseError::new(
                    self.source,
                    start,
                    line,
                    format!("expected a token, found {found:?}, which begins none"),
                ));
            }
        };
        Ok(Token { kind, text: &self.source[begin..self.position], start, line })
    }

    /// The source, for columns of errors.
    pub(super) fn source(&self) -> &'s str {
        self.source
    }

    fn rest(&self) -> &'s str {
        &self.source[self.position..]
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.as_bytes().get(self.position + ahead).copied()
    }

    fn skip_while(&mut self, accept: impl Fn(u8) -> bool) {
        while self.peek(0).is_some_and(&accept) {
            self.position += 1;
        }
    }

    /// Skips white space and comments.
    fn skip_blanks(&mut self) -> Result<()> {
        loop {
            match self.peek(0) {
                Some(b'\n') => {
                    self.line = self.line.saturating_add(1);
                    self.position += 1;
                }
                Some(b' ' | b'\t' | b'\r' | 0x0B | 0x0C) => self.position += 1,
                Some(b'/') if self.peek(1) == Some(b'/') => self.skip_while(|byte| byte != b'\n'),
                Some(b'/') if self.peek(1) == Some(b'*') => {
                    let inside = self.position + 2;
                    let Some(length) = self.source[inside..].find("*/") else {
                        let message = "expected `*/` to end this comment, found end of file".to_owned();
                        return Err(ParseError::new(self.source, self.position, self.line, message));
                    };
                    let lines = self.source[inside..inside + length].bytes().filter(|byte| *byte == b'\n').count();
                    self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
                    self.position = inside + length + 2;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Skips a number with all that sticks to it, so that `12abc` is one malformed number and not two tokens.
    fn skip_number(&mut self) {
        let prefixed = self.peek(0) == Some(b'0')
            && self.peek(1).is_some_and(|byte| matches!(byte.to_ascii_lowercase(), b'x' | b'b' | b'f' | b'd'));
        if !prefixed {
            self.skip_while(|byte| byte.is_ascii_digit());
            if self.peek(0) == Some(b'.') && self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) {
                self.position += 1;
                self.skip_while(|byte| byte.is_ascii_digit());
            }
            if matches!(self.peek(0), Some(b'e' | b'E')) {
                let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
                if self.peek(1 + sign).is_some_and(|byte| byte.is_ascii_digit()) {
                    self.position += 1 + sign;
                }
            }
        }
        self.skip_while(is_part);
    }

    /// A string. PTX has no escapes in them, and nvcc's paths contain none.
    fn text(&mut self, start: usize) -> Result<Token<'s>> {
        self.position += 1;
        let begin = self.position;
        self.skip_while(|byte| byte != b'"' && byte != b'\n');
        if self.peek(0) != Some(b'"') {
            let message = "expected `\"` to end this string, found end of line".to_owned();
            return Err(ParseError::new(self.source, start, self.line, message));
        }
        let text = &self.source[begin..self.position];
        self.position += 1;
        Ok(Token { kind: Kind::Text, text, start, line: self.line })
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$')
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
