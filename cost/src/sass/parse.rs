//! What `nvdisasm -c -gp -hex` prints, read back.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::control::Control;

/// One machine instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Bytes from the function's start.
    pub address: u32,
    /// `P0`, `!UP1`: the predicate that lets lanes execute it.
    pub guard: Option<String>,
    /// `LDS.64`.
    pub opcode: String,
    /// What stands behind it.
    pub operands: String,
    /// What the scheduler is told.
    pub control: Control,
    /// The line of PTX that it was made of.
    pub ptx_line: Option<u32>,
    /// Where it jumps to, if it names a place in the function.
    pub target: Option<u32>,
}

impl Instruction {
    /// The opcode without its modifiers: `LDS`.
    #[must_use]
    pub fn mnemonic(&self) -> &str {
        self.opcode.split('.').next().unwrap_or_default()
    }

    /// Whether the opcode has a modifier.
    #[must_use]
    pub fn has(&self, modifier: &str) -> bool {
        self.opcode.split('.').skip(1).any(|part| part == modifier)
    }

    /// Whether it is executed whatever predicates say.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        self.guard.is_none()
    }
}

/// The machine code of one kernel, with the subroutines that the compiler put behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The kernel's name.
    pub name: String,
    /// In the order of addresses.
    pub instructions: Vec<Instruction>,
}

impl Function {
    /// Registers of a thread: up to the last one that is named.
    #[must_use]
    pub fn registers(&self) -> usize {
        let words = self.instructions.iter().flat_map(|instruction| {
            instruction.operands.split(|c: char| !c.is_ascii_alphanumeric()).filter_map(|word| word.strip_prefix('R'))
        });
        words.filter_map(|digits| digits.parse::<usize>().ok()).max().map_or(0, |last| last + 1)
    }
}

/// Every kernel of a disassembly, in its order.
///
/// # Errors
/// Names the line that is not as `nvdisasm -c -gp -hex` prints it.
pub fn parse(text: &str) -> Result<Vec<Function>> {
    let mut functions: Vec<Draft> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let at = || format!("line {} of the disassembly: {line:?}", number + 1);
        if let Some(name) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            functions.push(Draft { name: name.into(), ..Draft::default() });
            continue;
        }
        let Some(draft) = functions.last_mut() else { continue };
        let trimmed = line.trim();
        if let Some(comment) = trimmed.strip_prefix("//##") {
            if let Some((_, rest)) = comment.split_once(".nv_debug_ptx_txt") {
                let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
                draft.ptx_line = Some(digits.parse().with_context(at)?);
            }
        } else if let Some(label) = trimmed.strip_suffix(':') {
            draft.pending.push(label.into());
        } else if trimmed.starts_with("/*") {
            let (next, upper) = lines.next().with_context(at)?;
            let upper = word(upper).with_context(|| format!("line {} of the disassembly", next + 1))?;
            draft.instruction(trimmed, upper).with_context(at)?;
        }
    }
    functions.into_iter().map(Draft::finish).collect()
}

/// The 64-bit word in the last comment of a line.
fn word(line: &str) -> Result<u64> {
    let (_, rest) = line.rsplit_once("/* 0x").context("has no instruction word")?;
    let digits = rest.split_once(' ').map_or(rest, |(digits, _)| digits);
    u64::from_str_radix(digits, 16).context("has no instruction word")
}

/// A function that is being read.
#[derive(Default)]
struct Draft {
    name: String,
    instructions: Vec<Instruction>,
    /// What each instruction names to jump to.
    targets: Vec<Option<String>>,
    labels: HashMap<String, u32>,
    /// Labels in front of the next instruction.
    pending: Vec<String>,
    ptx_line: Option<u32>,
}

impl Draft {
    /// `/*00b0*/  @!P0 BRA `(.L_x_0) ;  /* 0x... */`.
    fn instruction(&mut self, line: &str, upper: u64) -> Result<()> {
        let (address, rest) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")).context("no address")?;
        let address = u32::from_str_radix(address, 16).context("no address")?;
        let (text, _) = rest.rsplit_once("/* 0x").context("no instruction word")?;
        let text = text.trim().trim_end_matches(';').trim();
        let (guard, text) = match text.strip_prefix('@') {
            Some(rest) => {
                let (guard, rest) = rest.split_once(char::is_whitespace).context("a guard without an instruction")?;
                (Some(guard.to_owned()), rest.trim_start())
            }
            None => (None, text),
        };
        let (opcode, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        ensure!(!opcode.is_empty(), "no opcode");
        let target = operands.split_once("`(").and_then(|(_, rest)| rest.split_once(')')).map(|(name, _)| name.into());
        for label in self.pending.drain(..) {
            self.labels.insert(label, address);
        }
        self.targets.push(target);
        self.instructions.push(Instruction {
            address,
            guard,
            opcode: opcode.into(),
            operands: operands.trim().into(),
            control: Control::decode(upper),
            ptx_line: self.ptx_line,
            target: None,
        });
        Ok(())
    }

    fn finish(mut self) -> Result<Function> {
        for (instruction, target) in self.instructions.iter_mut().zip(&self.targets) {
            let Some(name) = target else { continue };
            instruction.target = self.labels.get(name).copied();
            // Calls name functions, some of them elsewhere; branches do not.
            if instruction.target.is_none() && instruction.mnemonic() == "BRA" {
                bail!("{}: {} jumps to `{name}`, which is nowhere", self.name, instruction.opcode);
            }
        }
        Ok(Function { name: self.name, instructions: self.instructions })
    }
}
