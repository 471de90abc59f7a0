//! What is to run: a kernel of a program, and the grid that it runs on.

use super::grid::Grid;
use super::program::{Code, Program};
use crate::fault::{Fault, Finding};

/// A launch that nothing stands against.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub program: &'a Program,
    /// Index of the kernel.
    pub kernel: usize,
    pub grid: &'a Grid<'a>,
}

impl<'a> Job<'a> {
    /// The kernel.
    pub fn code(&self) -> &'a Code {
        &self.program.functions[self.kernel]
    }

    /// A fault at function and step `at`, with the names that a reader knows.
    pub fn finding(&self, fault: Fault, block: [u32; 3], thread: usize, at: (usize, usize), count: u64) -> Finding {
        let step = &self.program.functions[at.0].steps[at.1];
        let source = step.location.and_then(|place| Some((self.program.files.get(&place.file)?.clone(), place.line)));
        Finding {
            fault,
            kernel: self.code().name.clone(),
            block,
            thread: self.grid.thread_index(thread),
            ptx_line: step.line,
            instruction: step.text.clone(),
            source,
            count,
        }
    }
}
