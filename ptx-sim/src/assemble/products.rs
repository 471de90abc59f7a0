//! Which instructions touch registers that `wgmma` uses, too: the checker has to hear of them.

use std::collections::HashSet;

use crate::ast::{Instruction, Operand};
use crate::decode::{Names, Operands};
use crate::exec::Step;

/// The registers of a function's instructions, while it is assembled.
#[derive(Default)]
pub(super) struct ProductRegisters {
    /// Registers that a `wgmma` accumulates in or takes A from.
    used: HashSet<u32>,
    /// Registers of every other instruction, by step.
    touched: Vec<(usize, Vec<u32>)>,
}

impl ProductRegisters {
    /// Notes the instruction that becomes a step.
    pub fn note(&mut self, step: usize, instruction: &Instruction, names: &Names) {
        let operands = Operands { instruction, names };
        let mut registers = Vec::new();
        if operands.root() == "wgmma" {
            let matrices = instruction.operands.iter().filter(|operand| matches!(operand, Operand::Vector(_)));
            matrices.for_each(|matrix| operands.registers_of(matrix, &mut registers));
            self.used.extend(registers);
        } else {
            instruction.operands.iter().for_each(|operand| operands.registers_of(operand, &mut registers));
            self.touched.push((step, registers));
        }
    }

    /// Writes down what matters, when all steps are there.
    pub fn finish(self, steps: &mut [Step]) {
        if self.used.is_empty() {
            return;
        }
        for (index, mut registers) in self.touched {
            registers.retain(|register| self.used.contains(register));
            if let Some(step) = steps.get_mut(index) {
                step.product_registers = registers.into();
            }
        }
    }
}
