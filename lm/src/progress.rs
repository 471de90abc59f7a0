//! Progress on the terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `steps` steps of `unit`. Where standard error is no terminal, one line says what begins.
#[must_use]
pub fn bar(what: &str, steps: usize, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if bar.is_hidden() {
        eprintln!("{what} ({steps} {unit})");
    }
    let template = format!("{{msg:44}} {{bar:32}} {{pos}}/{{len}} {unit}, {{eta}} left");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar
}
