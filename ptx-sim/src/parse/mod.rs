//! Reads PTX: [`parse`] makes an [`ast::Module`](crate::ast::Module) of a file.
//!
//! What nvcc emits is read completely, inline assembly included. The meaning of instructions is nobody's business
//! here: whether an opcode exists, or takes such operands, is for the executor to know. All sources are read in
//! time linear in their length, whatever they contain.
//!
//! `module` reads files and functions by `statement`, `variable` and `constant`, rules of the grammar that are methods
//! of the `parser`; it takes its tokens from the `lexer`.

mod constant;
mod error;
mod lexer;
mod literal;
mod module;
mod parser;
mod statement;
mod variable;

pub use error::ParseError;

use crate::ast::Module;
use parser::Parser;

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
pub fn parse(source: &str) -> Result<Module, ParseError> {
    Parser::new(source)?.module()
}
