//! What clusters leave behind for those that follow on the same core: room for shared memory and for registers, which
//! would otherwise be taken from the operating system and given back for every block.

use super::frame::Frame;
use crate::shared::SharedMemory;

/// Room that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    shared: Vec<SharedMemory>,
    frames: Vec<Frame>,
}

impl Pool {
    /// Shared memory, to be renewed.
    pub fn shared(&mut self) -> SharedMemory {
        self.shared.pop().unwrap_or_default()
    }

    /// The frame of the outermost call of a warp, empty.
    pub fn frame(&mut self) -> Frame {
        self.frames.pop().unwrap_or_else(|| Frame::new(0))
    }

    /// Takes shared memory back.
    pub fn give_shared(&mut self, shared: SharedMemory) {
        self.shared.push(shared);
    }

    /// Takes the frame of an outermost call back.
    pub fn give_frame(&mut self, mut frame: Frame) {
        frame.clear();
        self.frames.push(frame);
    }
}
