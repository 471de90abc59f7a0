//! Machine code as `nvdisasm` shows it: instructions with their control fields, basic blocks, pipes.

pub mod blocks;
pub mod control;
pub mod parse;
pub mod pipes;
pub mod repairs;
