//! What is to run: a kernel of a program, and the grid that it runs on.

use super::grid::Grid;
use super::program::{Code, Program, Step};
use crate::fault::{Fault, Finding};
use crate::profile::Executed;

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

    /// File and line in CUDA of an instruction.
    pub fn source(&self, step: &Step) -> Option<(String, u32)> {
        let place = step.location?;
        Some((self.program.files.get(&place.file)?.clone(), place.line))
    }

    /// What was counted at function and step `at`, with the names that a reader knows.
    pub fn executed(&self, at: (usize, usize), issued: Vec<u64>) -> Executed {
        let code = &self.program.functions[at.0];
        let step = &code.steps[at.1];
        let (function, instruction) = (code.name.clone(), step.text.clone());
        Executed { function, ptx_line: step.line, instruction, source: self.source(step), issued }
    }

    /// Function and step of the first instruction of a PTX line.
    pub fn place(&self, line: u32) -> (usize, usize) {
        let functions = self.program.functions.iter().enumerate();
        let at = functions.filter_map(|(i, code)| Some((i, code.steps.iter().position(|step| step.line == line)?)));
        at.into_iter().next().unwrap_or((self.kernel, 0))
    }

    /// A fault at function and step `at`, with the names that a reader knows.
    pub fn finding(&self, fault: Fault, block: [u32; 3], thread: usize, at: (usize, usize), count: u64) -> Finding {
        let step = &self.program.functions[at.0].steps[at.1];
        Finding {
            fault,
            kernel: self.code().name.clone(),
            block,
            thread: self.grid.thread_index(thread),
            ptx_line: step.line,
            instruction: step.text.clone(),
            source: self.source(step),
            count,
        }
    }
}
