//! What ptxas tells of machine code that it makes all the same: that it leaves instructions out, puts some in, or lets
//! none overlap. Its lines are of class info, so that they are no error where warnings are.

/// The notices in what a compiler printed: lines like `ptxas info    : (C7508) ...`. What `-v` makes it print has no
/// number.
pub fn notices(printed: &str) -> Vec<&str> {
    printed.lines().map(str::trim).filter(|line| line.starts_with("ptxas ") && has_number(line)).collect()
}

fn has_number(line: &str) -> bool {
    line.split("(C").skip(1).any(|rest| rest.split_once(')').is_some_and(|(number, _)| is_digits(number)))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The place in the sources that a notice on PTX with line information is about, as `file:line`: that of the line of
/// PTX that it names; else the beginning of the kernel that it names; else the first `setmaxnreg`, if it is on these.
pub fn place(notice: &str, ptx: &str) -> Option<String> {
    let lines: Vec<&str> = ptx.lines().collect();
    let line = after(notice, "line ").and_then(|number| number.parse().ok()).filter(|&number: &usize| number > 0);
    let kernel = || {
        let entry = format!(".entry {}(", after(notice, "function '")?);
        lines.iter().position(|line| line.contains(&entry))
    };
    let registers = || {
        let first = lines.iter().position(|line| line.trim_start().starts_with("setmaxnreg"));
        first.filter(|_| notice.contains("setmaxnreg"))
    };
    // A kernel's own line comes behind its name, that of an instruction before it.
    let (file, line) = match (line, kernel()) {
        (None, Some(entry)) => lines[entry..].iter().find_map(|line| location(line)),
        (line, _) => {
            let end = line.or_else(registers)?.min(lines.len());
            lines[..end].iter().rev().find_map(|line| location(line))
        }
    }?;
    let declares = |line: &&&str| line.split_whitespace().take(2).eq([".file", file]);
    let file = lines.iter().find(declares)?.split('"').nth(1)?;
    Some(format!("{file}:{line}"))
}

/// File and line of `.loc FILE LINE COLUMN`.
fn location(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    if words.next() == Some(".loc") { words.next().zip(words.next()) } else { None }
}

/// The word behind `key`.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = text.split_once(key)?.1;
    Some(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}
