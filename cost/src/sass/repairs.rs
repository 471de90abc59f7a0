//! Where machine code is not what the PTX asks for: what the assembler mends, drops or merges without failing.
//!
//! A missing fence, commit or wait of `wgmma` is put in, the wait for everything, so that the kernel is right and slow;
//! `setmaxnreg` is left out if the registers at entry are unknown; equal products of one stage become one; a commit in
//! another basic block than its products becomes a product of nothing. Of some of it the assembler prints a line, of some
//! none, and which differs between versions.

use std::collections::BTreeSet;

use super::parse::{Function, Instruction};

/// Of a kernel of a module, assembled with line information: a sentence for each thing that is not as asked for.
#[must_use]
pub fn repairs(ptx: &str, kernel: &Function) -> Vec<String> {
    let lines: Vec<&str> = ptx.lines().map(str::trim).collect();
    let body = body(&lines, &kernel.name);
    let mut found: Vec<String> = kernel.instructions.iter().filter_map(|i| misplaced(i, &lines)).collect();
    found.extend(uncommitted(body));
    let products: Vec<&Instruction> = kernel.instructions.iter().filter(|i| i.mnemonic().ends_with("GMMA")).collect();
    let of_nothing = products.iter().filter(|product| product.operands.starts_with("RZ,")).count();
    if of_nothing > 0 {
        found.push(format!("{of_nothing} products of nothing commit, behind loops or branches"));
    }
    let (left, asked) = (products.len() - of_nothing, count(body, "wgmma.mma_async"));
    if left < asked {
        found.push(format!("of {asked} wgmma.mma_async {left} are left"));
    }
    let (left, asked) = (registers_left(kernel), registers_asked(body));
    if left != asked {
        found.push(format!("setmaxnreg asks for {asked:?} registers, and for {left:?} in machine code"));
    }
    found
}

/// Whether a kernel has instructions that the assembler mends, drops or merges.
#[must_use]
pub fn needs_looking_at(ptx: &str, kernel: &str) -> bool {
    let lines: Vec<&str> = ptx.lines().map(str::trim).collect();
    let body = body(&lines, kernel);
    ["wgmma.", "setmaxnreg."].iter().any(|name| count(body, name) > 0)
}

/// The kernels of a module, in its order.
pub fn kernels(ptx: &str) -> impl Iterator<Item = &str> {
    ptx.lines().filter_map(|line| Some(line.split_once(".entry ")?.1.split('(').next()?.trim()))
}

/// The lines of a kernel; its closing brace alone stands at the beginning of a line.
fn body<'a, 'b>(lines: &'a [&'b str], kernel: &str) -> &'a [&'b str] {
    let names =
        |line: &&str| line.split_once(".entry ").is_some_and(|(_, rest)| rest.split('(').next() == Some(kernel));
    let start = lines.iter().position(names).unwrap_or(lines.len());
    let length = lines[start..].iter().skip(1).position(|line| line.contains(".entry ") || line.contains(".func "));
    &lines[start..length.map_or(lines.len(), |length| start + 1 + length)]
}

fn count(body: &[&str], name: &str) -> usize {
    body.iter().filter(|line| line.contains(name)).count()
}

/// A fence or a wait that stands in machine code for a line of PTX that asks for none, or for another.
fn misplaced(instruction: &Instruction, lines: &[&str]) -> Option<String> {
    let asked = match instruction.opcode.as_str() {
        "WARPGROUP.ARRIVE" => "wgmma.fence".to_owned(),
        "WARPGROUP.DEPBAR.LE" => format!("wgmma.wait_group.sync.aligned {};", last_number(&instruction.operands)?),
        _ => return None,
    };
    let line = instruction.ptx_line?;
    let text = lines.get(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let Instruction { opcode, operands, .. } = instruction;
    (!text.contains(&asked)).then(|| format!("{opcode} {operands} is put in for line {line} of the PTX, `{text}`"))
}

/// Products that no commit follows, in the order of the text.
fn uncommitted(body: &[&str]) -> Option<String> {
    let mut open = false;
    for line in body {
        if line.contains("wgmma.mma_async") {
            open = true;
        } else if line.contains("wgmma.commit_group") {
            open = false;
        } else if open && line.contains("wgmma.wait_group") {
            break;
        }
    }
    open.then(|| "wgmma.mma_async without wgmma.commit_group".into())
}

fn registers_asked(body: &[&str]) -> BTreeSet<u32> {
    body.iter().filter(|line| line.contains("setmaxnreg.")).filter_map(|line| last_number(line)).collect()
}

fn registers_left(kernel: &Function) -> BTreeSet<u32> {
    let changes = kernel.instructions.iter().filter(|instruction| instruction.mnemonic() == "USETMAXREG");
    changes.filter_map(|instruction| last_number(&instruction.operands)).collect()
}

/// The last word, without the sign that ends a statement: `0x28` or `40`.
fn last_number(text: &str) -> Option<u32> {
    let word = text.trim_end_matches(';').rsplit([' ', ',']).next()?;
    word.strip_prefix("0x").map_or_else(|| word.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
}
