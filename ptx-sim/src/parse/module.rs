//! Directives of a file and its functions (PTX ISA sections 5 and 11).

use std::collections::HashMap;

use super::error::Result;
use super::lexer::{Kind, Token};
use super::parser::Parser;
use super::variable::space;
use crate::ast::{Function, Module, Space};

/// `.alias name, target;`
struct Alias<'s> {
    name: Token<'s>,
    target: Token<'s>,
}

impl<'s> Parser<'s> {
    /// A whole file.
    pub(super) fn module(&mut self) -> Result<Module> {
        // PTX without an `.address_size` is of 32 bits.
        let mut module = Module { version: self.version()?, address_size: 32, ..Module::default() };
        let mut aliases = Vec::new();
        while self.token.kind != Kind::End {
            self.item(&mut module, &mut aliases)?;
        }
        self.resolve(&mut module, &aliases)?;
        Ok(module)
    }

    fn version(&mut self) -> Result<(u32, u32)> {
        const EXPECTED: &str = "a version such as `9.0`";
        if !self.token.is_dotted("version") {
            return Err(self.unexpected("`.version`"));
        }
        self.advance()?;
        let parts = self.token.text.split_once('.').filter(|_| self.token.kind == Kind::Number);
        let version = parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let version = version.ok_or_else(|| self.unexpected(EXPECTED))?;
        self.advance()?;
        Ok(version)
    }

    /// One directive, variable or function.
    fn item(&mut self, module: &mut Module, aliases: &mut Vec<Alias<'s>>) -> Result<()> {
        let line = self.token.line;
        let mut external = false;
        let mut linked = false;
        while self.token.kind == Kind::Dotted && matches!(self.token.text, "visible" | "weak" | "extern" | "common") {
            external |= self.advance()?.text == "extern";
            linked = true;
        }
        let expected = if linked { "`.entry`, `.func`, `.global`, `.const` or `.shared`" } else { "a directive" };
        if self.token.kind != Kind::Dotted {
            return Err(self.unexpected(expected));
        }
        match self.token.text {
            "entry" | "func" => module.functions.push(self.function(line)?),
            name if matches!(space(name), Some(Space::Global | Space::Const | Space::Shared | Space::Local)) => {
                self.advance()?;
                // The name is matched above.
                let space = space(name).unwrap_or(Space::Global);
                module.variables.extend(self.variables(space, external, line)?);
            }
            "target" if !linked => self.target(module)?,
            "address_size" if !linked => {
                self.advance()?;
                module.address_size = match self.token.text {
                    "32" => 32,
                    "64" => 64,
                    _ => return Err(self.unexpected("`32` or `64`")),
                };
                self.advance()?;
            }
            "file" if !linked => self.file(module)?,
            "section" if !linked => {
                self.advance()?;
                if !matches!(self.token.kind, Kind::Dotted | Kind::Word) {
                    return Err(self.unexpected("the section's name"));
                }
                self.advance()?;
                self.expect("{", "`{`")?;
                self.skip_block("{", "}")?;
            }
            "pragma" if !linked => self.skip_pragma()?,
            "alias" if !linked => {
                self.advance()?;
                let name = self.name("a function")?;
                self.expect(",", "`,`")?;
                let target = self.name("a function")?;
                self.expect(";", "`;`")?;
                aliases.push(Alias { name, target });
            }
            _ => return Err(self.unexpected(expected)),
        }
        Ok(())
    }

    /// `.target sm_90a, debug`
    fn target(&mut self, module: &mut Module) -> Result<()> {
        self.advance()?;
        loop {
            module.target.push(self.name("a target such as `sm_90a`")?.text.to_owned());
            if !self.accept(",")? {
                return Ok(());
            }
        }
    }

    /// `.file 1 "path"`, which a timestamp and a size may follow.
    fn file(&mut self, module: &mut Module) -> Result<()> {
        self.advance()?;
        let number = self.number("the file's number")?;
        let path = self.expect_kind(Kind::Text, "the file's path")?;
        module.files.push((number, path.text.to_owned()));
        while self.accept(",")? {
            self.integer()?;
        }
        Ok(())
    }

    /// `.entry` or `.func` and all that belongs to it; `line` is that of its linkage.
    fn function(&mut self, line: u32) -> Result<Function> {
        let entry = self.advance()?.text == "entry";
        while self.token.is_dotted("attribute") {
            self.skip_attribute()?;
        }
        let returns = if !entry && self.accept("(")? { self.parameters()? } else { Vec::new() };
        let name = self.name("the function's name")?.text.to_owned();
        let params = if self.accept("(")? { self.parameters()? } else { Vec::new() };
        let directives = self.performance_directives()?;
        let body = if self.accept(";")? {
            None
        } else {
            self.expect("{", "a performance directive, `{` or `;`")?;
            Some(self.body()?)
        };
        Ok(Function { name, entry, returns, params, directives, body, line })
    }

    /// `.maxntid 128, 1, 1` and the like, between a function's parameters and its body.
    fn performance_directives(&mut self) -> Result<Vec<(String, Vec<u32>)>> {
        let mut directives = Vec::new();
        while self.token.kind == Kind::Dotted {
            let numbers = match self.token.text {
                "maxntid" | "reqntid" | "reqnctapercluster" => 3,
                "minnctapersm"
                | "maxnctapersm"
                | "maxnreg"
                | "maxclusterrank"
                | "abi_preserve"
                | "abi_preserve_control" => 1,
                "noreturn" | "explicitcluster" | "blocksareclusters" => 0,
                "pragma" => {
                    self.skip_pragma()?;
                    continue;
                }
                _ => return Err(self.unexpected("a performance directive, `{` or `;`")),
            };
            let name = self.advance()?.text.to_owned();
            let mut values = Vec::new();
            // Dimensions left out are 1.
            while values.len() < numbers && (values.is_empty() || self.accept(",")?) {
                values.push(self.number("a number")?);
            }
            directives.push((name, values));
        }
        Ok(directives)
    }

    /// Gives aliases the functions they stand for: a call through one runs a copy of its target.
    fn resolve(&mut self, module: &mut Module, aliases: &[Alias<'s>]) -> Result<()> {
        if aliases.is_empty() {
            return Ok(());
        }
        let mut indices = HashMap::new();
        for (index, function) in module.functions.iter().enumerate() {
            let known = indices.entry(function.name.clone()).or_insert(index);
            // A definition counts more than the declarations around it.
            if function.body.is_some() {
                *known = index;
            }
        }
        for Alias { name, target } in aliases {
            let index = indices.get(target.text).copied();
            let Some((index, body)) = index.and_then(|index| Some((index, module.functions[index].body.as_ref()?)))
            else {
                return Err(self.error_at(*target, format!("expected a defined function, found `{}`", target.text)));
            };
            self.imply(body.len() + 1, *target)?;
            let copy = Function { name: name.text.to_owned(), ..module.functions[index].clone() };
            match indices.get(name.text) {
                Some(declared) if module.functions[*declared].body.is_none() => module.functions[*declared] = copy,
                Some(_) => {
                    return Err(self.error_at(*name, format!("expected a declared function, found `{}`", name.text)));
                }
                None => {
                    indices.insert(name.text.to_owned(), module.functions.len());
                    module.functions.push(copy);
                }
            }
        }
        Ok(())
    }
}
